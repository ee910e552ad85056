// What goes into quiver::Client and what comes out of it.
#ifndef QUIVER_CLIENT_TYPES_H_
#define QUIVER_CLIENT_TYPES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace quiver::client {

// A text in UTF-8, or ready token ids, which are run exactly as given.
struct Input {
  Input(const char* text) : content(std::string(text)) {}        // NOLINT(google-explicit-*)
  Input(std::string text) : content(std::move(text)) {}          // NOLINT(google-explicit-*)
  Input(std::vector<uint32_t> ids) : content(std::move(ids)) {}  // NOLINT(google-explicit-*)

  std::variant<std::string, std::vector<uint32_t>> content;
};

// What becomes of an input that is longer than the model takes.
enum class Truncation { kServerDefault, kNone, kRight, kLeft };

// Elements of a vector as they travel.
enum class ElementType { kFloat32, kFloat16, kBfloat16, kInt8, kBinary };

// Which of the server's queues the work goes to. The default is kInteractive for Client::Embed and
// kBulk for streams.
enum class Lane { kDefault, kInteractive, kBulk };

// What holds for all inputs of a call or a stream. What is not set is the server's default.
struct EmbedOptions {
  // The served model's name, or an alias; empty for whichever is served.
  std::string model = {};
  // One of ModelInfo::prompts by name; the empty name is no prompt at all. Not with `instruction`.
  std::optional<std::string> prompt_name = {};
  // A task in words, for models that take one.
  std::optional<std::string> instruction = {};
  std::optional<int> dimensions = {};
  std::optional<bool> normalize = {};
  Truncation truncation = Truncation::kServerDefault;
  // A smaller type travels and is stored faster; Embedding::Floats reads each.
  ElementType type = ElementType::kFloat32;
  Lane lane = Lane::kDefault;
};

struct Embedding {
  // The elements as they travelled: packed, little-endian; of kBinary one bit a dimension, the
  // highest of a byte first.
  std::string data = {};
  ElementType type = ElementType::kFloat32;
  int dimensions = 0;
  // For kInt8 the factor of each element.
  float scale = 0;
  // Tokens run through the model, prompt and special tokens included.
  int token_count = 0;
  // Whether the input was shortened.
  bool truncated = false;

  // The values, exactly; of kBinary +1 where a bit is set, else -1.
  std::vector<float> Floats() const;
};

// Vectors may be compared if and only if `fingerprint` is equal. Queries and documents of one index
// may differ in `prompt_fingerprint`, its documents should not.
struct VectorSpace {
  std::string fingerprint = {};
  std::string prompt_fingerprint = {};
};

struct EmbedReply {
  // One for each input, in order. What is wrong with one input is its own error.
  std::vector<absl::StatusOr<Embedding>> results;
  VectorSpace space;
  // Name of the model that ran.
  std::string model = {};
};

// The model that is served, and its limits.
struct ModelInfo {
  std::string model = {};
  std::vector<std::string> aliases;
  std::string architecture = {};
  std::string quantization = {};
  std::string device = {};
  std::string server_version = {};
  int hidden_size = 0;
  uint32_t vocabulary_size = 0;
  int default_dimensions = 0;
  int min_dimensions = 0;
  int max_dimensions = 0;
  int max_input_tokens = 0;
  // By name.
  std::vector<std::pair<std::string, std::string>> prompts;
  std::string default_prompt_name = {};
  bool accepts_instruction = false;
  // Of requests that give neither dimensions nor normalize.
  VectorSpace space;
};

// The field that an INVALID_ARGUMENT of a server speaks of, such as "text" or "dimensions"; empty
// for other errors. The message then begins with it.
std::string ErrorField(const absl::Status& status);

// How long the server asked to wait before another try; zero if it did not.
absl::Duration RetryDelay(const absl::Status& status);

}  // namespace quiver::client

#endif  // QUIVER_CLIENT_TYPES_H_
