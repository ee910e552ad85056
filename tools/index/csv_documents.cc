// RFC 4180: records end with LF or CRLF; a field in quotes may hold separators, line ends and
// doubled quotes.
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/field_error.h"
#include "engine/text/tokenizer.h"
#include "tools/index/block_reader.h"
#include "tools/index/document_readers.h"

namespace quiver::index {
namespace {

class Csv : public DocumentSource {
 public:
  Csv(DocumentOptions options, char separator, std::unique_ptr<ByteSource> bytes,
      uint64_t total_bytes)
      : options_(std::move(options)),
        separator_(separator),
        blocks_(std::move(bytes), total_bytes) {}

  bool Next(Document* document) override {
    if (!Begin() || !NextRecord()) return false;
    document->place = absl::StrCat("line ", record_line_);
    document->id.clear();
    document->text = Read(&document->id);
    ++number_;
    return true;
  }

  bool Skip() override {
    if (!Begin() || !NextRecord()) return false;
    ++number_;
    return true;
  }

  void Interrupt() override { blocks_.Interrupt(); }
  absl::Status status() const override {
    return blocks_.status().ok() ? header_status_ : blocks_.status();
  }
  double progress() const override { return blocks_.progress(); }

 private:
  // Reads the names of the fields, once. They must be there: without them no record has a text.
  bool Begin() {
    if (begun_) return header_status_.ok();
    begun_ = true;
    if (!NextRecord()) return false;
    header_status_ = record_status_;
    names_ = std::move(values_);
    std::vector<std::string> wanted = options_.text.fields();
    if (!options_.id_field.empty()) wanted.push_back(options_.id_field);
    for (const std::string& field : wanted) {
      if (std::find(names_.begin(), names_.end(), field) == names_.end()) {
        header_status_.Update(absl::InvalidArgumentError(
            absl::StrCat(options_.path, ": its first record names no field '", field, "'")));
      }
    }
    return header_status_.ok();
  }

  enum class State { kFieldStart, kPlain, kQuoted, kQuoteInQuoted };

  // Reads the next record that is not an empty line into values_. False at the end.
  bool NextRecord() {
    values_.clear();
    field_.clear();
    record_status_ = absl::OkStatus();
    record_line_ = line_;
    record_bytes_ = 0;
    state_ = State::kFieldStart;
    for (absl::string_view block = blocks_.Block(); !block.empty(); block = blocks_.Block()) {
      for (size_t i = 0; i < block.size(); ++i) {
        if (!Take(block[i])) continue;
        if (values_.size() == 1 && values_[0].empty() && record_bytes_ <= 2) {
          // An empty line.
          values_.clear();
          record_bytes_ = 0;
          record_line_ = line_;
          continue;
        }
        blocks_.Consume(i + 1);
        return true;
      }
      blocks_.Consume(block.size());
    }
    if (!blocks_.status().ok() || record_bytes_ == 0) return false;
    if (state_ == State::kQuoted) Fail("a quote is not closed before the end of the input");
    EndField();
    return true;
  }

  // True if `c` ends the record.
  bool Take(char c) {
    ++record_bytes_;
    if (c == '\n') ++line_;
    if (state_ == State::kQuoted) {
      if (c == '"') {
        state_ = State::kQuoteInQuoted;
      } else {
        Append(c);
      }
      return false;
    }
    if (c == '\n') {
      // Of CRLF; behind a quote it was left out already.
      if (state_ == State::kPlain && field_.back() == '\r') field_.pop_back();
      EndField();
      return true;
    }
    if (c == separator_) {
      EndField();
    } else if (c == '"' && state_ == State::kFieldStart) {
      state_ = State::kQuoted;
    } else if (c == '"' && state_ == State::kQuoteInQuoted) {
      Append(c);
      state_ = State::kQuoted;
    } else if (state_ == State::kQuoteInQuoted) {
      if (c != '\r') Fail("text follows a closing quote");
    } else {
      Append(c);
      state_ = State::kPlain;
    }
    return false;
  }

  void Append(char c) {
    if (record_bytes_ <= kMaxRecordBytes) field_.push_back(c);
  }

  void EndField() {
    values_.push_back(std::exchange(field_, {}));
    state_ = State::kFieldStart;
  }

  void Fail(absl::string_view why) { record_status_.Update(FieldError("record", why)); }

  absl::StatusOr<std::string> Read(std::string* id) {
    if (record_bytes_ > kMaxRecordBytes) {
      return FieldError("record", absl::StrCat("has ", record_bytes_, " bytes; at most ",
                                               kMaxRecordBytes, " are read"));
    }
    if (!record_status_.ok()) return record_status_;
    if (values_.size() != names_.size()) {
      return FieldError("record", absl::StrCat("has ", values_.size(),
                                               " fields; the first record "
                                               "names ",
                                               names_.size()));
    }
    for (size_t i = 0; i < values_.size(); ++i) {
      if (const int64_t offset = FindInvalidUtf8(values_[i]); offset >= 0) {
        return FieldError(names_[i], absl::StrCat("invalid UTF-8 at byte ", offset));
      }
    }
    const std::string* name =
        Value(options_.id_field.empty() ? kDefaultIdField : options_.id_field);
    if (name == nullptr) {
      *id = absl::StrCat(number_);
    } else if (name->empty()) {
      return FieldError(options_.id_field.empty() ? kDefaultIdField : options_.id_field,
                        "must not be empty");
    } else {
      *id = *name;
    }
    return options_.text.Render(
        [&](const std::string& field) -> absl::StatusOr<std::optional<std::string>> {
          return *Value(field);
        });
  }

  const std::string* Value(const std::string& field) const {
    const auto found = std::find(names_.begin(), names_.end(), field);
    return found == names_.end() ? nullptr : &values_[static_cast<size_t>(found - names_.begin())];
  }

  const DocumentOptions options_;
  const char separator_;
  BlockReader blocks_;
  bool begun_ = false;
  absl::Status header_status_;
  std::vector<std::string> names_;

  std::vector<std::string> values_;
  absl::Status record_status_;
  uint64_t record_line_ = 1;
  uint64_t record_bytes_ = 0;
  std::string field_;
  State state_ = State::kFieldStart;
  uint64_t line_ = 1;
  uint64_t number_ = 0;
};

}  // namespace

std::unique_ptr<DocumentSource> CsvDocuments(DocumentOptions options, char separator,
                                             std::unique_ptr<ByteSource> bytes,
                                             uint64_t total_bytes) {
  return std::make_unique<Csv>(std::move(options), separator, std::move(bytes), total_bytes);
}

}  // namespace quiver::index
