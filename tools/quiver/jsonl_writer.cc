#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tools/quiver/json_text.h"
#include "tools/quiver/result_writer.h"

namespace quiver {
namespace {

// Lines of results; a format appends what stands between the name and the end of the line.
template <typename Result>
class JsonlWriter : public ResultWriter<Result> {
 public:
  explicit JsonlWriter(std::unique_ptr<OutputFile> file) : file_(std::move(file)) {}

  absl::Status Begin(int) override { return absl::OkStatus(); }
  absl::Status Put(const InputItem& item, const absl::StatusOr<Result>& result) override {
    line_.clear();
    if (result.ok()) {
      line_.push_back('{');
      AppendJsonName(item, &line_);
      AppendResult(*result, &line_);
      line_.append(result->truncated ? ",\"truncated\":true}\n" : "}\n");
    } else {
      AppendJsonError(item, result.status(), &line_);
    }
    return file_->Write(line_);
  }
  absl::Status Flush() override { return file_->Flush(); }
  absl::Status Close() override { return file_->Close(); }

 protected:
  virtual void AppendResult(const Result& result, std::string* line) = 0;

 private:
  const std::unique_ptr<OutputFile> file_;
  std::string line_;
};

class EmbeddingLines : public JsonlWriter<Embedding> {
 public:
  EmbeddingLines(std::unique_ptr<OutputFile> file, OutputType type)
      : JsonlWriter(std::move(file)), type_(type) {}

 private:
  void AppendResult(const Embedding& embedding, std::string* line) override {
    const EncodedVector& vector = embedding.vector;
    line->append(",\"embedding\":");
    if (type_ == OutputType::kInt8) {
      AppendBytes<int8_t>(vector.data, line);
      line->append(",\"scale\":");
      AppendJsonFloat(vector.scale, line);
    } else if (type_ == OutputType::kBinary) {
      AppendBytes<uint8_t>(vector.data, line);
    } else {
      AppendJsonArray(DecodeFloats(type_, vector), line);
    }
    absl::StrAppend(line, ",\"tokens\":", embedding.token_count);
  }

  template <typename Byte>
  void AppendBytes(const std::string& data, std::string* line) {
    std::vector<int32_t> values;
    values.reserve(data.size());
    for (const char byte : data) values.push_back(static_cast<Byte>(byte));
    AppendJsonArray(values, line);
  }

  const OutputType type_;
};

class TokenLines : public JsonlWriter<TokenizedInput> {
 public:
  using JsonlWriter::JsonlWriter;

 private:
  void AppendResult(const TokenizedInput& input, std::string* line) override {
    line->append(",\"ids\":");
    AppendJsonArray(input.ids, line);
  }
};

}  // namespace

std::unique_ptr<EmbeddingWriter> JsonlEmbeddings(std::unique_ptr<OutputFile> file,
                                                 OutputType type) {
  return std::make_unique<EmbeddingLines>(std::move(file), type);
}

std::unique_ptr<TokenWriter> JsonlTokens(std::unique_ptr<OutputFile> file) {
  return std::make_unique<TokenLines>(std::move(file));
}

}  // namespace quiver
