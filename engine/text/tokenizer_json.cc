#include "engine/text/tokenizer_json.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace quiver {
namespace {

using nlohmann::json;

// Far above what a tokenizer.json nests.
constexpr size_t kMaxDepth = 64;
constexpr int64_t kMaxId = std::numeric_limits<TokenId>::max() - 1;

// Offsets while the bytes behind them still grow.
struct Range {
  size_t offset, length;
};

// SAX handler. Outside of the two big parts it builds the document; `stack_` holds the open
// containers, the innermost last.
class Reader : public nlohmann::json_sax<json> {
 public:
  explicit Reader(TokenizerJson* out) : out_(out) {}

  bool null() override { return Value(nullptr); }
  bool boolean(bool v) override { return Value(v); }
  bool number_integer(int64_t v) override { return part_ == Part::kVocab ? Id(v) : Value(v); }
  bool number_unsigned(uint64_t v) override {
    if (part_ != Part::kVocab) return Value(v);
    return Id(v > static_cast<uint64_t>(kMaxId) ? kMaxId + 1 : static_cast<int64_t>(v));
  }
  bool number_float(double v, const std::string&) override { return Value(v); }
  bool string(std::string& v) override { return part_ == Part::kMerges ? Merge(v) : Value(v); }
  bool binary(json::binary_t&) override { return Fail("holds binary data"); }

  bool start_object(size_t) override {
    if (part_ != Part::kDocument) return Misplaced();
    if (stack_.size() == 1 && key_ == "model") in_model_ = true;
    if (in_model_ && stack_.size() == 2 && key_ == "vocab") {
      Value(json::object());
      part_ = Part::kVocab;
      return true;
    }
    return Open(json::object());
  }
  bool key(std::string& v) override {
    key_.swap(v);
    if (part_ == Part::kVocab) {
      vocab_.push_back({{out_->vocab_bytes.size(), key_.size()}, 0});
      out_->vocab_bytes += key_;
    }
    return true;
  }
  bool end_object() override {
    if (part_ == Part::kVocab) {
      part_ = Part::kDocument;
      return true;
    }
    return Close();
  }
  bool start_array(size_t) override {
    if (part_ == Part::kVocab || merge_parts_ >= 0) return Misplaced();
    if (part_ == Part::kMerges) {
      merge_parts_ = 0;
      return true;
    }
    if (in_model_ && stack_.size() == 2 && key_ == "merges") {
      Value(json::array());
      out_->has_merges = true;
      part_ = Part::kMerges;
      return true;
    }
    return Open(json::array());
  }
  bool end_array() override {
    if (part_ != Part::kMerges) return Close();
    if (merge_parts_ < 0) {
      part_ = Part::kDocument;
      return true;
    }
    if (merge_parts_ != 2) return Misplaced();
    merge_parts_ = -1;
    ++num_merges_;
    return true;
  }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    // `position` is the number of bytes read, that of the error included.
    const size_t offset = position == 0 ? 0 : position - 1;
    status_ = absl::DataLossError(absl::StrCat("is not valid JSON at byte ", offset));
    return false;
  }

  const absl::Status& status() const { return status_; }

  // Turns offsets into views, now that nothing grows any more, and checks what needs all of it.
  absl::Status Finish() {
    const absl::string_view bytes = out_->vocab_bytes;
    std::vector<TokenId> ids;
    out_->vocab.reserve(vocab_.size());
    ids.reserve(vocab_.size());
    for (const auto& [range, id] : vocab_) {
      out_->vocab.push_back({bytes.substr(range.offset, range.length), id});
      ids.push_back(id);
    }
    std::sort(ids.begin(), ids.end());
    const auto twice = std::adjacent_find(ids.begin(), ids.end());
    if (twice != ids.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("model.vocab gives the id ", *twice, " to two tokens"));
    }
    const absl::string_view merge_bytes = out_->merge_bytes;
    out_->merges.reserve(merges_.size() / 2);
    for (size_t i = 0; i + 1 < merges_.size(); i += 2) {
      out_->merges.emplace_back(merge_bytes.substr(merges_[i].offset, merges_[i].length),
                                merge_bytes.substr(merges_[i + 1].offset, merges_[i + 1].length));
    }
    return absl::OkStatus();
  }

 private:
  enum class Part { kDocument, kVocab, kMerges };

  bool Fail(const std::string& message) {
    status_ = absl::InvalidArgumentError(message);
    return false;
  }
  bool Misplaced() {
    if (part_ == Part::kVocab) {
      return Fail(absl::StrCat("model.vocab: the id of \"", key_, "\" is not a whole number"));
    }
    return Fail(
        absl::StrCat("model.merges[", num_merges_, "] is neither \"A B\" nor [\"A\", \"B\"]"));
  }

  bool Id(int64_t id) {
    if (id < 0 || id > kMaxId) {
      return Fail(
          absl::StrCat("model.vocab: the id of \"", key_, "\" is not in [0, ", kMaxId, "]"));
    }
    vocab_.back().second = static_cast<TokenId>(id);
    return true;
  }

  bool Merge(absl::string_view v) {
    if (merge_parts_ >= 0) {
      if (++merge_parts_ > 2) return Misplaced();
      MergePart(v);
      return true;
    }
    // The old form, one string. A header line of merges.txt may have come along.
    if (absl::StartsWith(v, "#version")) return true;
    const size_t space = v.find(' ');
    if (space == absl::string_view::npos || v.find(' ', space + 1) != absl::string_view::npos) {
      return Misplaced();
    }
    MergePart(v.substr(0, space));
    MergePart(v.substr(space + 1));
    ++num_merges_;
    return true;
  }
  void MergePart(absl::string_view v) {
    merges_.push_back({out_->merge_bytes.size(), v.size()});
    out_->merge_bytes.append(v.data(), v.size());
  }

  json* Place(json value) {
    if (stack_.empty()) {
      out_->document = std::move(value);
      return &out_->document;
    }
    json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }
  bool Value(json value) {
    if (part_ != Part::kDocument) return Misplaced();
    Place(std::move(value));
    return true;
  }
  bool Open(json container) {
    if (stack_.size() == kMaxDepth) {
      return Fail(absl::StrCat("nests deeper than ", kMaxDepth, " levels"));
    }
    stack_.push_back(Place(std::move(container)));
    return true;
  }
  bool Close() {
    stack_.pop_back();
    if (stack_.size() == 1) in_model_ = false;
    return true;
  }

  TokenizerJson* out_;
  absl::Status status_;
  Part part_ = Part::kDocument;
  std::vector<json*> stack_;
  std::string key_;
  bool in_model_ = false;
  // Strings seen of the merge that is open, -1 if none is.
  int merge_parts_ = -1;
  size_t num_merges_ = 0;
  std::vector<std::pair<Range, TokenId>> vocab_;
  std::vector<Range> merges_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TokenizerJson>> ParseTokenizerJson(absl::string_view text) {
  auto out = std::make_unique<TokenizerJson>();
  Reader reader(out.get());
  if (!json::sax_parse(text.begin(), text.end(), &reader)) return reader.status();
  absl::Status status = reader.Finish();
  if (!status.ok()) return status;
  if (!out->document.is_object() || !out->document.contains("model") ||
      !out->document["model"].is_object()) {
    return absl::InvalidArgumentError("has no object \"model\": it is no tokenizer.json");
  }
  return out;
}

absl::StatusOr<std::unique_ptr<TokenizerJson>> ReadTokenizerJson(const std::string& path) {
  // Asked before opening: a FIFO would wait for a writer.
  std::error_code unknown;
  const std::filesystem::file_status kind = std::filesystem::status(path, unknown);
  if (std::filesystem::exists(kind) && !std::filesystem::is_regular_file(kind)) {
    return absl::InvalidArgumentError("is not a regular file");
  }
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return absl::NotFoundError("cannot be opened");
  const std::streamoff size = file.tellg();
  if (size < 0 || size > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError("is not a file of at most 2 GiB");
  }
  std::string text(static_cast<size_t>(size), '\0');
  file.seekg(0);
  if (!file.read(text.data(), size)) return absl::DataLossError("cannot be read to its end");
  return ParseTokenizerJson(text);
}

}  // namespace quiver
