#include <algorithm>
#include <fstream>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "tools/index/nearest.h"
#include "tools/index/search_index.h"
#include "tools/index/vector_file.h"

namespace quiver::index {
namespace {

using Json = nlohmann::json;

template <typename Value>
bool Get(const Json& object, const char* name, Value* value) {
  const auto found = object.find(name);
  if (found == object.end()) return false;
  if constexpr (std::is_same_v<Value, std::string>) {
    if (!found->is_string()) return false;
  } else if (!found->is_number_unsigned()) {
    return false;
  }
  *value = found->get<Value>();
  return true;
}

class FileIndex : public SearchIndex {
 public:
  FileIndex(std::unique_ptr<VectorFile> vectors, std::string stem, cpu::ThreadPool* pool)
      : vectors_(std::move(vectors)),
        meta_path_(stem + ".meta.json"),
        rows_path_(stem + ".rows.jsonl"),
        pool_(pool) {}

  absl::Status ReadMeta() {
    std::ifstream in(meta_path_);
    if (!in) {
      return absl::FailedPreconditionError(
          absl::StrCat(meta_path_, ": cannot be read; it is written when an index is whole"));
    }
    const Json meta = Json::parse(in, nullptr, /*allow_exceptions=*/false);
    uint64_t dimensions = 0, rows = 0;
    if (!meta.is_object() || !Get(meta, "fingerprint", &fingerprint_) ||
        !Get(meta, "dimensions", &dimensions) || !Get(meta, "rows", &rows)) {
      return absl::DataLossError(absl::StrCat(
          meta_path_, ": must be a JSON object with fingerprint, dimensions and rows"));
    }
    const auto own_dimensions = static_cast<uint64_t>(vectors_->dimensions());
    if (rows != vectors_->rows() || (rows > 0 && dimensions != own_dimensions)) {
      return absl::DataLossError(absl::StrCat(meta_path_, ": says ", rows, " rows of ", dimensions,
                                              " dimensions, ", vectors_->path(), " has ",
                                              vectors_->rows(), " of ", own_dimensions));
    }
    return absl::OkStatus();
  }

  const std::string& fingerprint() const override { return fingerprint_; }
  int dimensions() const override { return vectors_->dimensions(); }

  absl::StatusOr<std::vector<std::vector<Hit>>> Search(absl::Span<const float> queries,
                                                       int top) override {
    const auto found = FindNearest(*vectors_, queries, Similarity::kCosine, top, pool_);
    if (!found.ok()) return found.status();
    std::map<uint64_t, Hit> rows;
    for (const auto& neighbours : *found) {
      for (const Neighbour& neighbour : neighbours) rows[neighbour.row];
    }
    if (absl::Status status = ReadRows(&rows); !status.ok()) return status;
    std::vector<std::vector<Hit>> results;
    for (const auto& neighbours : *found) {
      std::vector<Hit>& hits = results.emplace_back();
      for (const Neighbour& neighbour : neighbours) {
        hits.push_back(rows[neighbour.row]);
        hits.back().score = neighbour.score;
      }
    }
    return results;
  }

 private:
  // Fills in `rows`, by the number of their line.
  absl::Status ReadRows(std::map<uint64_t, Hit>* rows) const {
    std::ifstream in(rows_path_, std::ios::binary);
    std::string line;
    uint64_t number = 0;
    for (auto& [row, hit] : *rows) {
      bool there = true;
      for (; there && number <= row; ++number) there = static_cast<bool>(std::getline(in, line));
      if (!there) {
        return absl::DataLossError(absl::StrCat(rows_path_,
                                                ": cannot be read, or has fewer lines than ",
                                                vectors_->path(), " has rows"));
      }
      const Json object = Json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (!object.is_object() || !Get(object, "id", &hit.id) || !Get(object, "chunk", &hit.chunk)) {
        return absl::DataLossError(absl::StrCat(rows_path_, ": line ", row + 1,
                                                " must be a JSON object with id and chunk"));
      }
      Get(object, "text", &hit.text);
    }
    return absl::OkStatus();
  }

  const std::unique_ptr<VectorFile> vectors_;
  const std::string meta_path_;
  const std::string rows_path_;
  cpu::ThreadPool* const pool_;
  std::string fingerprint_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SearchIndex>> OpenFileIndex(const std::string& path,
                                                           cpu::ThreadPool* pool) {
  absl::StatusOr<std::unique_ptr<VectorFile>> vectors = VectorFile::Open(path);
  if (!vectors.ok()) return vectors.status();
  auto index =
      std::make_unique<FileIndex>(*std::move(vectors), path.substr(0, path.rfind('.')), pool);
  if (absl::Status status = index->ReadMeta(); !status.ok()) return status;
  return index;
}

}  // namespace quiver::index
