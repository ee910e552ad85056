#include "server/embed_json.h"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/field_error.h"
#include "nlohmann/json.hpp"
#include "server/wire.h"

namespace quiver {
namespace {

constexpr size_t kMaxDepth = 64;
// Of a name or a value that an error repeats.
constexpr size_t kShownBytes = 64;

enum class Field : uint8_t {
  kInput,
  kModel,
  kEncodingFormat,
  kDimensions,
  kUser,
  kPromptName,
  kInstruction,
  kTruncate,
  kTruncationDirection,
  kNormalize,
  kPriority,
  kOther,
};

struct FieldSpec {
  absl::string_view key;
  absl::string_view allowed;
};

// In the order of Field. The first is called as the request's form has it.
constexpr FieldSpec kFields[] = {
    {"input", "a string, token ids, or an array of either"},
    {"model", "a string"},
    {"encoding_format", "\"float\" or \"base64\""},
    {"dimensions", "an integer"},
    {"user", "a string"},
    {"prompt_name", "a string"},
    {"instruction", "a string"},
    {"truncate", "true, false, \"none\", \"left\" or \"right\""},
    {"truncation_direction", "\"left\" or \"right\""},
    {"normalize", "true or false"},
    {"priority", "\"interactive\" or \"bulk\""},
};
static_assert(std::size(kFields) == static_cast<size_t>(Field::kOther));

const FieldSpec& SpecOf(Field field) { return kFields[static_cast<size_t>(field)]; }

Field FieldOf(absl::string_view key, absl::string_view input_key) {
  if (key == input_key) return Field::kInput;
  for (size_t i = 1; i < std::size(kFields); ++i) {
    if (kFields[i].key == key) return static_cast<Field>(i);
  }
  return Field::kOther;
}

// What a scalar may be, other than null.
using Scalar = std::variant<bool, int64_t, double, std::string*>;

std::string Describe(const Scalar& value) {
  struct Visitor {
    std::string operator()(bool b) const { return b ? "true" : "false"; }
    std::string operator()(int64_t i) const { return absl::StrCat(i); }
    std::string operator()(double d) const { return absl::StrCat(d); }
    std::string operator()(const std::string* s) const {
      return absl::StrCat("\"", absl::string_view(*s).substr(0, kShownBytes), "\"");
    }
  };
  return std::visit(Visitor(), value);
}

// Takes the parser's events one by one. A method that returns false ends the parsing.
class Reader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  Reader(absl::string_view input_key, int max_items)
      : input_key_(input_key), max_items_(max_items) {}

  absl::StatusOr<EmbedJson> Finish() {
    if (!status_.ok()) return status_;
    if (request_.inputs.empty()) {
      return FieldError(input_key_,
                        has_input_ ? "must have at least 1; there are 0" : "is required");
    }
    if (left_ && request_.options.truncation == Truncation::kRight) {
      request_.options.truncation = Truncation::kLeft;
    }
    return std::move(request_);
  }

  bool null() override {
    if (IsOther()) return true;
    if (keys_.empty()) return Take(NotObject("null"));
    if (depth_ > 1 || field_ == Field::kInput) return Take(WrongValue(field_, "null"));
    return true;
  }
  bool boolean(bool value) override { return Scalars(value); }
  bool number_integer(number_integer_t value) override { return Scalars(int64_t{value}); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Scalars(static_cast<double>(value));
    }
    return Scalars(static_cast<int64_t>(value));
  }
  bool number_float(number_float_t value, const string_t&) override { return Scalars(value); }
  bool string(string_t& value) override { return Scalars(&value); }
  bool binary(binary_t&) override { return false; }

  bool start_object(size_t) override {
    if (!keys_.empty() && !IsOther()) return Take(WrongValue(field_, "an object"));
    keys_.emplace_back();
    return Descend();
  }
  bool key(string_t& key) override {
    if (!keys_.back().insert(key).second) {
      return Take(FieldError(absl::string_view(key).substr(0, kShownBytes), "must be given once"));
    }
    if (depth_ == 1) field_ = FieldOf(key, input_key_);
    return true;
  }
  bool end_object() override {
    keys_.pop_back();
    --depth_;
    return true;
  }

  bool start_array(size_t) override {
    if (keys_.empty()) return Take(NotObject("an array"));
    if (!IsOther()) {
      if (field_ != Field::kInput || depth_ > 2) return Take(WrongValue(field_, "an array"));
      if (depth_ == 1) {
        has_input_ = true;
        request_.is_list = true;
      } else if (!StartIds()) {
        return false;
      }
    }
    return Descend();
  }
  bool end_array() override {
    --depth_;
    if (!IsOther() && depth_ == 2 && shape_ == Shape::kIdLists &&
        std::get<std::vector<TokenId>>(request_.inputs.back()).empty()) {
      return Take(FieldError(InputPath(), "must not be empty"));
    }
    // A flat array of ids is one input.
    if (depth_ == 1 && shape_ == Shape::kIds) request_.is_list = false;
    return true;
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::json::exception& error) override {
    // The library's text may quote bytes that are no text.
    status_ = absl::InvalidArgumentError(
        error.id == 406 ? absl::StrCat("the body has a number out of range at byte ", position)
                        : absl::StrCat("the body is not valid JSON in UTF-8 at byte ", position));
    return false;
  }

 private:
  // What the elements of `input` are.
  enum class Shape : uint8_t { kUnknown, kTexts, kIds, kIdLists };

  static absl::Status NotObject(absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("the body must be a JSON object; it is ", what));
  }

  absl::Status WrongValue(Field field, absl::string_view what) const {
    return FieldError(field == Field::kInput ? input_key_ : SpecOf(field).key,
                      absl::StrCat("must be ", SpecOf(field).allowed, "; it is ", what));
  }

  bool IsOther() const { return !keys_.empty() && field_ == Field::kOther; }

  bool Take(absl::Status status) {
    status_ = std::move(status);
    return status_.ok();
  }

  bool Descend() {
    if (++depth_ <= kMaxDepth) return true;
    return Take(absl::InvalidArgumentError(
        absl::StrCat("the body is nested deeper than ", kMaxDepth, " levels")));
  }

  bool Scalars(const Scalar& value) {
    if (keys_.empty()) return Take(NotObject(Describe(value)));
    if (IsOther()) return true;
    return Take(field_ == Field::kInput ? TakeInput(value) : TakeOption(value));
  }

  absl::Status TakeOption(const Scalar& value) {
    std::string* const* text = std::get_if<std::string*>(&value);
    const bool* flag = std::get_if<bool>(&value);
    const int64_t* number = std::get_if<int64_t>(&value);
    RequestOptions& options = request_.options;
    switch (field_) {
      case Field::kModel:
        if (text == nullptr) break;
        request_.model = std::move(**text);
        return absl::OkStatus();
      case Field::kUser:
        if (text == nullptr) break;
        return absl::OkStatus();
      case Field::kPromptName:
        if (text == nullptr) break;
        options.prompt_name = std::move(**text);
        return absl::OkStatus();
      case Field::kInstruction:
        if (text == nullptr) break;
        options.instruction = std::move(**text);
        return absl::OkStatus();
      case Field::kDimensions:
        if (number == nullptr) break;
        options.dimensions = *number;
        return absl::OkStatus();
      case Field::kNormalize:
        if (flag == nullptr) break;
        options.normalize = *flag;
        return absl::OkStatus();
      case Field::kEncodingFormat:
        if (text == nullptr || (**text != "float" && **text != "base64")) break;
        request_.base64 = **text == "base64";
        return absl::OkStatus();
      case Field::kPriority:
        if (text == nullptr || (**text != "interactive" && **text != "bulk")) break;
        request_.lane = **text == "bulk" ? Lane::kBulk : Lane::kInteractive;
        return absl::OkStatus();
      case Field::kTruncate:
        options.truncation = TruncationOf(text, flag);
        if (!options.truncation) break;
        return absl::OkStatus();
      case Field::kTruncationDirection:
        if (text == nullptr) break;
        left_ = absl::EqualsIgnoreCase(**text, "left");
        if (!left_ && !absl::EqualsIgnoreCase(**text, "right")) break;
        return absl::OkStatus();
      case Field::kInput:
      case Field::kOther:
        break;
    }
    return WrongValue(field_, Describe(value));
  }

  static std::optional<Truncation> TruncationOf(std::string* const* text, const bool* flag) {
    if (flag != nullptr) return *flag ? Truncation::kRight : Truncation::kNone;
    if (text == nullptr) return std::nullopt;
    if (**text == "none") return Truncation::kNone;
    if (**text == "right") return Truncation::kRight;
    if (**text == "left") return Truncation::kLeft;
    return std::nullopt;
  }

  // A scalar of `input`, or `input` itself.
  absl::Status TakeInput(const Scalar& value) {
    has_input_ = true;
    if (std::string* const* text = std::get_if<std::string*>(&value);
        text != nullptr && depth_ <= 2) {
      return TakeText(std::move(**text));
    }
    const int64_t* number = std::get_if<int64_t>(&value);
    if (number == nullptr || depth_ == 1) return WrongValue(Field::kInput, Describe(value));
    if (depth_ == 2 && shape_ != Shape::kIds) {
      if (shape_ != Shape::kUnknown) return Mixed();
      shape_ = Shape::kIds;
      request_.inputs.emplace_back(std::vector<TokenId>());
    }
    auto& ids = std::get<std::vector<TokenId>>(request_.inputs.back());
    if (*number < 0 || *number > std::numeric_limits<TokenId>::max()) {
      return FieldError(absl::StrCat(InputPath(), kForeignIdMark, ids.size(), "]"),
                        absl::StrCat("must be an id of the model's tokens; it is ", *number));
    }
    ids.push_back(static_cast<TokenId>(*number));
    return absl::OkStatus();
  }

  absl::Status TakeText(std::string text) {
    if (shape_ != Shape::kUnknown && shape_ != Shape::kTexts) return Mixed();
    shape_ = Shape::kTexts;
    request_.inputs.emplace_back(std::move(text));
    return CheckCount();
  }

  bool StartIds() {
    if (shape_ != Shape::kUnknown && shape_ != Shape::kIdLists) return Take(Mixed());
    shape_ = Shape::kIdLists;
    request_.inputs.emplace_back(std::vector<TokenId>());
    return Take(CheckCount());
  }

  absl::Status CheckCount() const {
    return CheckItemCount(input_key_, static_cast<int64_t>(request_.inputs.size()), max_items_);
  }

  absl::Status Mixed() const {
    return FieldError(input_key_, "must be all strings or all token ids; it has both");
  }

  std::string InputPath() const {
    return shape_ == Shape::kIds ? std::string(input_key_)
                                 : absl::StrCat(input_key_, "[", request_.inputs.size() - 1, "]");
  }

  const absl::string_view input_key_;
  const int max_items_;
  EmbedJson request_;
  absl::Status status_;
  // Of the innermost value: 1 in the body's object.
  size_t depth_ = 0;
  // Of the body's object, the one whose value is being read.
  Field field_ = Field::kOther;
  // Seen in each object that is open.
  std::vector<absl::flat_hash_set<std::string>> keys_;
  Shape shape_ = Shape::kUnknown;
  bool has_input_ = false;
  bool left_ = false;
};

}  // namespace

absl::StatusOr<EmbedJson> ParseEmbedJson(absl::string_view body, absl::string_view input_key,
                                         int max_items) {
  // To the parser a NUL is the end.
  if (const size_t nul = body.find('\0'); nul != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat("the body has a NUL at byte ", nul + 1));
  }
  Reader reader(input_key, max_items);
  nlohmann::json::sax_parse(body.begin(), body.end(), &reader);
  return reader.Finish();
}

}  // namespace quiver
