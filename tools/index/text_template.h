#ifndef QUIVER_TOOLS_INDEX_TEXT_TEMPLATE_H_
#define QUIVER_TOOLS_INDEX_TEXT_TEMPLATE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quiver::index {

// How a document's text is made of its fields: "{title} {text}". {{ and }} are braces.
//
// A field that a document lacks, or whose value is empty, takes the blanks behind it away, and
// those before it if nothing follows: without a title, "{title} {text}" is the text alone, without
// a blank. Values are never trimmed.
class TextTemplate {
 public:
  // A value of a document by name: nothing if it lacks the field, an error if the value cannot be
  // part of a text.
  using Lookup =
      absl::FunctionRef<absl::StatusOr<std::optional<std::string>>(const std::string& field)>;

  // INVALID_ARGUMENT says what is wrong with the braces, and where.
  static absl::StatusOr<TextTemplate> Parse(absl::string_view text);

  // The text. A FieldError if the document has none of the fields, or of `lookup`.
  absl::StatusOr<std::string> Render(Lookup lookup) const;

  // At least one.
  std::vector<std::string> fields() const;

 private:
  struct Part {
    std::string before;
    std::string field;
  };
  std::vector<Part> parts_;
  std::string tail_;
};

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_TEXT_TEMPLATE_H_
