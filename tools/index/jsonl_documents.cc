#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/field_error.h"
#include "engine/text/tokenizer.h"
#include "nlohmann/json.hpp"
#include "tools/index/block_reader.h"
#include "tools/index/document_readers.h"

namespace quiver::index {
namespace {

using Json = nlohmann::json;

absl::StatusOr<Json> ParseObject(absl::string_view line) {
  Json value;
  try {
    value = Json::parse(line);
  } catch (const Json::parse_error& e) {
    if (const int64_t offset = FindInvalidUtf8(line); offset >= 0) {
      return FieldError("line", absl::StrCat("invalid UTF-8 at byte ", offset));
    }
    return FieldError(
        "line", absl::StrCat("must be JSON; it is broken at byte ", e.byte > 0 ? e.byte - 1 : 0));
  }
  if (!value.is_object()) {
    return FieldError("line",
                      absl::StrCat("must be a JSON object; it is of type ", value.type_name()));
  }
  return value;
}

class Jsonl : public DocumentSource {
 public:
  Jsonl(DocumentOptions options, std::unique_ptr<ByteSource> bytes, uint64_t total_bytes)
      : options_(std::move(options)), blocks_(std::move(bytes), total_bytes) {}

  bool Next(Document* document) override {
    if (!NextLine()) return false;
    document->place = absl::StrCat("line ", line_number_);
    document->id.clear();
    document->text = Read(&document->id);
    ++number_;
    return true;
  }

  bool Skip() override {
    if (!NextLine()) return false;
    ++number_;
    return true;
  }

  void Interrupt() override { blocks_.Interrupt(); }
  absl::Status status() const override { return blocks_.status(); }
  double progress() const override { return blocks_.progress(); }

 private:
  // The next line that is not blank, without its end; of one that is too long only its beginning.
  bool NextLine() {
    do {
      if (!AnyLine()) return false;
    } while (line_.find_first_not_of(" \t\r") == std::string::npos);
    return true;
  }

  bool AnyLine() {
    line_.clear();
    line_bytes_ = 0;
    ++line_number_;
    for (absl::string_view block = blocks_.Block(); !block.empty(); block = blocks_.Block()) {
      const size_t end = block.find('\n');
      const absl::string_view part = block.substr(0, end);
      line_bytes_ += part.size();
      if (line_bytes_ <= kMaxRecordBytes) line_.append(part.data(), part.size());
      blocks_.Consume(end == absl::string_view::npos ? part.size() : end + 1);
      if (end != absl::string_view::npos) return true;
    }
    return blocks_.status().ok() && line_bytes_ > 0;
  }

  absl::StatusOr<std::string> Read(std::string* id) {
    if (line_bytes_ > kMaxRecordBytes) {
      return FieldError("line", absl::StrCat("has ", line_bytes_, " bytes; at most ",
                                             kMaxRecordBytes, " are read"));
    }
    const absl::StatusOr<Json> record = ParseObject(line_);
    if (!record.ok()) return record.status();
    // The name first, so that what is wrong with the rest is reported under it.
    absl::StatusOr<std::string> name = ReadId(*record);
    if (!name.ok()) return name.status();
    *id = *std::move(name);
    return options_.text.Render(
        [&](const std::string& field) -> absl::StatusOr<std::optional<std::string>> {
          const auto value = record->find(field);
          if (value == record->end() || value->is_null()) return std::nullopt;
          if (value->is_string()) return value->get<std::string>();
          if (value->is_number() || value->is_boolean()) return value->dump();
          return FieldError(field, absl::StrCat("must be a string, a number or a boolean; it is of "
                                                "type ",
                                                value->type_name()));
        });
  }

  absl::StatusOr<std::string> ReadId(const Json& record) const {
    const std::string& field = options_.id_field.empty() ? kDefaultIdField : options_.id_field;
    const auto value = record.find(field);
    if (value == record.end() || value->is_null()) {
      if (options_.id_field.empty()) return absl::StrCat(number_);
      return FieldError(field, "is not there");
    }
    if (!value->is_string() && !value->is_number_integer()) {
      return FieldError(field, absl::StrCat("must be a string or an integer; it is of type ",
                                            value->type_name()));
    }
    return value->is_string() ? value->get<std::string>() : value->dump();
  }

  const DocumentOptions options_;
  BlockReader blocks_;
  std::string line_;
  uint64_t line_bytes_ = 0;
  uint64_t line_number_ = 0;
  uint64_t number_ = 0;
};

}  // namespace

std::unique_ptr<DocumentSource> JsonlDocuments(DocumentOptions options,
                                               std::unique_ptr<ByteSource> bytes,
                                               uint64_t total_bytes) {
  return std::make_unique<Jsonl>(std::move(options), std::move(bytes), total_bytes);
}

}  // namespace quiver::index
