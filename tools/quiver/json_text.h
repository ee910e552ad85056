// JSON, written piece by piece where values are many.
#ifndef QUIVER_TOOLS_QUIVER_JSON_TEXT_H_
#define QUIVER_TOOLS_QUIVER_JSON_TEXT_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tools/quiver/input_source.h"

namespace quiver {

// `text` with its quotes. Bytes that are not UTF-8 become U+FFFD.
std::string JsonString(absl::string_view text);

// A finite float in the fewest digits that read back as the same one.
void AppendJsonFloat(float value, std::string* out);
// [0.25,-1e-07]
void AppendJsonArray(absl::Span<const float> values, std::string* out);
void AppendJsonArray(absl::Span<const int32_t> values, std::string* out);

// "id":"a" or, for an item without a name, "index":3.
void AppendJsonName(const InputItem& item, std::string* out);

// {"id":"a","error":{"code":"INVALID_ARGUMENT","message":"text: must not be empty"}} and a newline.
void AppendJsonError(const InputItem& item, const absl::Status& status, std::string* out);

// What is wrong with an input, as a person reads it: "text: must not be empty".
std::string ErrorText(const absl::Status& status);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_JSON_TEXT_H_
