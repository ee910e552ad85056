// The formats that results are written in.
#ifndef QUIVER_TOOLS_QUIVER_RESULT_WRITER_H_
#define QUIVER_TOOLS_QUIVER_RESULT_WRITER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/types.h"
#include "tools/quiver/executor.h"
#include "tools/quiver/output_file.h"

namespace quiver {

template <typename Result>
class ResultWriter : public ResultSink<Result> {
 public:
  // After the last result of a run that came to its end. Without it an .npy file is not written.
  virtual absl::Status Close() = 0;
};
using EmbeddingWriter = ResultWriter<Embedding>;
using TokenWriter = ResultWriter<TokenizedInput>;

// One line an item, in order:
//   {"id":"a","embedding":[...],"tokens":7}     "index":3 for an item without a name;
//                                               "truncated":true if it was shortened
//   {"id":"a","error":{"code":"...","message":"..."}}
// Elements are the shortest decimals that read back as the same float. For kInt8 they are the
// integers, with "scale" beside them; for kBinary the packed bytes as integers.
std::unique_ptr<EmbeddingWriter> JsonlEmbeddings(std::unique_ptr<OutputFile> file, OutputType type);

// {"id":"a","ids":[101,...,102]}, otherwise the same.
std::unique_ptr<TokenWriter> JsonlTokens(std::unique_ptr<OutputFile> file);

// NumPy's format, float32 [items, dimensions], rows in the order of the items; the row of an item
// that failed is NaN. `file` must be kWhole, `type` not kBinary; kInt8 is scaled.
std::unique_ptr<EmbeddingWriter> NpyEmbeddings(std::unique_ptr<OutputFile> file, OutputType type);

// The values of a vector as floats, exactly. `type` is not kBinary.
std::vector<float> DecodeFloats(OutputType type, const EncodedVector& vector);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_RESULT_WRITER_H_
