// The header of a safetensors file: an unsigned 64-bit little-endian length, then that many bytes
// of a JSON object, {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...,
// "__metadata__": {...}}; the tensors' bytes follow, offsets counting from the header's end.
#ifndef QUIVER_ENGINE_MODEL_SAFETENSORS_HEADER_H_
#define QUIVER_ENGINE_MODEL_SAFETENSORS_HEADER_H_

#include <cstddef>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/model/weights.h"

namespace quiver {

// The tensors of the file whose bytes are `bytes`, as views into them; `file` is its name for
// messages. DATA_LOSS says what is wrong, with the tensor's name: a length that leaves the file,
// JSON that is none or names a tensor twice, an unknown dtype, a shape that does not fit its range,
// and ranges that overlap, leave a gap or leave the file.
absl::StatusOr<std::map<std::string, TensorView>> ParseSafetensors(
    const std::string& file, absl::Span<const std::byte> bytes);

}  // namespace quiver

#endif  // QUIVER_ENGINE_MODEL_SAFETENSORS_HEADER_H_
