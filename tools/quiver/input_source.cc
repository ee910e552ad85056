#include "tools/quiver/input_source.h"

#include <atomic>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "engine/field_error.h"
#include "engine/text/tokenizer.h"
#include "nlohmann/json.hpp"
#include "tools/quiver/line_reader.h"

namespace quiver {
namespace {

using Json = nlohmann::json;

absl::Status CheckUtf8(absl::string_view field, absl::string_view text) {
  const int64_t offset = FindInvalidUtf8(text);
  if (offset < 0) return absl::OkStatus();
  return FieldError(field, absl::StrCat("invalid UTF-8 at byte ", offset));
}

class ArgumentSource : public InputSource {
 public:
  explicit ArgumentSource(std::vector<std::string> texts) : texts_(std::move(texts)) {}

  bool Next(InputItem* item) override {
    if (interrupted_ || next_ == texts_.size()) return false;
    *item = {.index = next_,
             .place = absl::StrCat("argument ", next_ + 1),
             .id_json = "",
             .text = std::move(texts_[next_])};
    if (absl::Status status = CheckUtf8("text", *item->text); !status.ok()) item->text = status;
    ++next_;
    return true;
  }
  bool WouldWait() const override { return false; }
  void Interrupt() override { interrupted_ = true; }
  // All is read by then.
  void StopAt(absl::Time) override {}
  absl::Status status() const override { return absl::OkStatus(); }

 private:
  std::vector<std::string> texts_;
  size_t next_ = 0;
  std::atomic<bool> interrupted_{false};
};

bool IsBlank(absl::string_view line) {
  return line.find_first_not_of(" \t") == absl::string_view::npos;
}

bool LooksLikeJsonl(absl::string_view line) {
  const Json value = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  return value.is_object() && value.contains("text");
}

// Sets the item's text and name from a line of JSONL.
void ReadJsonLine(absl::string_view line, InputItem* item) {
  if (absl::Status status = CheckUtf8("line", line); !status.ok()) {
    item->text = status;
    return;
  }
  Json value;
  try {
    value = Json::parse(line);
  } catch (const Json::parse_error& e) {
    item->text = FieldError(
        "line", absl::StrCat("must be JSON; it is broken at byte ", e.byte > 0 ? e.byte - 1 : 0));
    return;
  }
  if (!value.is_object()) {
    item->text = FieldError(
        "line", absl::StrCat("must be a JSON object; it is of type ", value.type_name()));
    return;
  }
  // The name first, so that what is wrong with the rest is reported under it.
  if (const auto id = value.find("id"); id != value.end() && !id->is_null()) {
    if (!id->is_string() && !id->is_number_integer()) {
      item->text = FieldError(
          "id", absl::StrCat("must be a string or an integer; it is of type ", id->type_name()));
      return;
    }
    item->id_json = id->dump();
  }
  const auto text = value.find("text");
  if (text == value.end() || !text->is_string()) {
    item->text = FieldError(
        "text",
        absl::StrCat("must be a string; it is ",
                     text == value.end() ? "absent" : absl::StrCat("of type ", text->type_name())));
    return;
  }
  item->text = std::move(text->get_ref<std::string&>());
}

class FileSource : public InputSource {
 public:
  FileSource(std::unique_ptr<LineReader> lines, InputFormat format, size_t max_line_bytes)
      : lines_(std::move(lines)), format_(format), max_line_bytes_(max_line_bytes) {}

  bool Next(InputItem* item) override {
    LineReader::Line line;
    do {
      if (!lines_->Next(&line)) return false;
      if (format_ == InputFormat::kDetect) {
        format_ = LooksLikeJsonl(line.text) ? InputFormat::kJsonl : InputFormat::kText;
      }
    } while (format_ == InputFormat::kJsonl && IsBlank(line.text));
    *item = {.index = next_++,
             .place = absl::StrCat("line ", line.number),
             .id_json = "",
             .text = std::string()};
    if (line.size > line.text.size()) {
      item->text = FieldError(
          "line", absl::StrCat("must be at most ", max_line_bytes_, " bytes; it has ", line.size));
    } else if (format_ == InputFormat::kJsonl) {
      ReadJsonLine(line.text, item);
    } else if (absl::Status status = CheckUtf8("text", line.text); !status.ok()) {
      item->text = status;
    } else {
      item->text = std::move(line.text);
    }
    return true;
  }
  bool WouldWait() const override { return lines_->WouldWait(); }
  void Interrupt() override { lines_->Interrupt(); }
  void StopAt(absl::Time deadline) override { lines_->StopAt(deadline); }
  absl::Status status() const override { return lines_->status(); }

 private:
  const std::unique_ptr<LineReader> lines_;
  InputFormat format_;
  const size_t max_line_bytes_;
  uint64_t next_ = 0;
};

}  // namespace

std::unique_ptr<InputSource> SourceOfTexts(std::vector<std::string> texts) {
  return std::make_unique<ArgumentSource>(std::move(texts));
}

absl::StatusOr<std::unique_ptr<InputSource>> SourceOfFile(const std::string& path,
                                                          InputFormat format,
                                                          size_t max_line_bytes) {
  absl::StatusOr<std::unique_ptr<LineReader>> lines = LineReader::Open(path, max_line_bytes);
  if (!lines.ok()) return lines.status();
  if (format == InputFormat::kDetect &&
      (absl::EndsWith(path, ".jsonl") || absl::EndsWith(path, ".ndjson"))) {
    format = InputFormat::kJsonl;
  }
  return std::make_unique<FileSource>(*std::move(lines), format, max_line_bytes);
}

}  // namespace quiver
