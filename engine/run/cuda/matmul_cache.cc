#include "engine/run/cuda/matmul_cache.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace quiver {
namespace {

// Changes with the meaning of the lines, and with what there is to choose from.
constexpr char kMagic[] = "quiver-matmul 4";
constexpr int64_t kLeastRows = 16;

}  // namespace

int64_t NextMatmulRowBucket(int64_t bucket) {
  // 16, 32, 64, 96, 128, 192, 256, 384, ...
  if (bucket < 64) return 2 * bucket;
  const bool power_of_two = (bucket & (bucket - 1)) == 0;
  return power_of_two ? bucket / 2 * 3 : bucket / 3 * 4;
}

int64_t MatmulRowBucket(int64_t rows) {
  int64_t bucket = kLeastRows;
  while (bucket < rows) bucket = NextMatmulRowBucket(bucket);
  return bucket;
}

MatmulCache MatmulCache::Load(const std::string& path, const std::string& identity) {
  MatmulCache empty;
  empty.identity_ = identity;
  std::ifstream in(path);
  std::string line;
  if (!std::getline(in, line) || line != kMagic) return empty;
  if (!std::getline(in, line) || line != identity) return empty;
  MatmulCache cache = empty;
  while (std::getline(in, line)) {
    std::istringstream fields(line);
    MatmulKey key;
    MatmulAlgorithm algorithm;
    fields >> key.n >> key.k >> key.x_stride >> key.out_stride >> key.rows >> key.epilogue >>
        key.form >> std::hex;
    for (uint64_t& word : algorithm) fields >> word;
    if (fields.fail()) return empty;
    cache.algorithms_[key] = algorithm;
  }
  return cache;
}

std::optional<MatmulAlgorithm> MatmulCache::Find(const MatmulKey& key) const {
  const auto found = algorithms_.find(key);
  if (found == algorithms_.end()) return std::nullopt;
  return found->second;
}

void MatmulCache::Put(const MatmulKey& key, const MatmulAlgorithm& algorithm) {
  algorithms_[key] = algorithm;
  changed_ = true;
}

absl::Status MatmulCache::Save(const std::string& path) const {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  // Another process may write the same file.
  const std::string temporary = absl::StrCat(path, ".", getpid());
  {
    std::ofstream out(temporary);
    out << kMagic << "\n" << identity_ << "\n";
    for (const auto& [key, algorithm] : algorithms_) {
      out << std::dec << key.n << " " << key.k << " " << key.x_stride << " " << key.out_stride
          << " " << key.rows << " " << key.epilogue << " " << key.form << std::hex;
      for (const uint64_t word : algorithm) out << " " << word;
      out << "\n";
    }
    if (!out.flush()) {
      std::filesystem::remove(temporary, error);
      return absl::UnavailableError(absl::StrCat("cannot write ", temporary));
    }
  }
  std::filesystem::rename(temporary, path, error);
  if (error) return absl::UnavailableError(absl::StrCat("cannot write ", path));
  return absl::OkStatus();
}

std::string MatmulCachePath(const std::string& cache_dir, const std::string& identity) {
  std::string folder = cache_dir;
  if (folder.empty()) {
    const char* cache = std::getenv("XDG_CACHE_HOME");
    const char* home = std::getenv("HOME");
    if (cache != nullptr && *cache != '\0') {
      folder = absl::StrCat(cache, "/quiver");
    } else if (home != nullptr && *home != '\0') {
      folder = absl::StrCat(home, "/.cache/quiver");
    } else {
      return "";
    }
  }
  std::string name = identity;
  for (char& c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '-') c = '_';
  }
  return absl::StrCat(folder, "/matmul-", name, ".txt");
}

}  // namespace quiver
