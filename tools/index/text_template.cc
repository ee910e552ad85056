#include "tools/index/text_template.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/field_error.h"

namespace quiver::index {
namespace {

absl::Status Wrong(absl::string_view why, size_t at) {
  return absl::InvalidArgumentError(absl::StrCat(why, " at byte ", at));
}

}  // namespace

absl::StatusOr<TextTemplate> TextTemplate::Parse(absl::string_view text) {
  TextTemplate made;
  std::string literal;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool doubled = i + 1 < text.size() && text[i + 1] == c;
    if ((c == '{' || c == '}') && doubled) {
      literal.push_back(c);
      ++i;
    } else if (c == '}') {
      return Wrong("'}' closes nothing (write }} for a brace)", i);
    } else if (c == '{') {
      const size_t end = text.find('}', i);
      const absl::string_view field = text.substr(i + 1, end - i - 1);
      if (end == absl::string_view::npos) {
        return Wrong("'{' is not closed (write {{ for a brace)", i);
      }
      if (field.empty() || field.find('{') != absl::string_view::npos) {
        return Wrong("'{' must be followed by a field's name and '}'", i);
      }
      made.parts_.push_back({std::exchange(literal, {}), std::string(field)});
      i = end;
    } else {
      literal.push_back(c);
    }
  }
  if (made.parts_.empty()) {
    return absl::InvalidArgumentError("must name at least one field, as in '{title} {text}'");
  }
  made.tail_ = std::move(literal);
  return made;
}

absl::StatusOr<std::string> TextTemplate::Render(Lookup lookup) const {
  std::string text;
  bool any = false;
  bool drop_blanks = false;
  const auto append_literal = [&](absl::string_view literal) {
    absl::StrAppend(&text, drop_blanks ? absl::StripLeadingAsciiWhitespace(literal) : literal);
  };
  for (size_t i = 0; i < parts_.size(); ++i) {
    const Part& part = parts_[i];
    absl::StatusOr<std::optional<std::string>> value = lookup(part.field);
    if (!value.ok()) return value.status();
    any |= value->has_value();
    const bool empty = !value->has_value() || (*value)->empty();
    const bool last = i + 1 == parts_.size() && tail_.empty();
    append_literal(empty && last ? absl::StripTrailingAsciiWhitespace(part.before)
                                 : absl::string_view(part.before));
    if (!empty) absl::StrAppend(&text, **value);
    drop_blanks = empty;
  }
  append_literal(tail_);
  if (!any) {
    const std::vector<std::string> names = fields();
    return FieldError(names[0], absl::StrCat("is not there, nor is any other field of the text (",
                                             absl::StrJoin(names, ", "), ")"));
  }
  return text;
}

std::vector<std::string> TextTemplate::fields() const {
  std::vector<std::string> names;
  for (const Part& part : parts_) names.push_back(part.field);
  return names;
}

}  // namespace quiver::index
