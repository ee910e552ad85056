// Between the engine's words for pooling and vectors and the kernels', for every backend.
#ifndef QUIVER_ENGINE_RUN_ENCODING_H_
#define QUIVER_ENGINE_RUN_ENCODING_H_

#include "absl/status/status.h"
#include "engine/model/model_config.h"
#include "engine/types.h"
#include "kernels/cpu/pool_encode.h"

namespace quiver {

cpu::PoolKind PoolKindOf(Pooling pooling);
cpu::Encoding EncodingOf(OutputType type);
// What a sequence whose vector is `status` is answered with.
absl::Status VectorError(cpu::VectorStatus status);
// Whether a sequence was answered so: the model computed it, but to NaN, infinity or zero.
bool IsUnusableVector(const absl::Status& status);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_ENCODING_H_
