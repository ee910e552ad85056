#include "tools/index/nearest.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "kernels/cpu/matmul.h"

namespace quiver::index {
namespace {

// Rows that are worked on at once by a thread: at 1024 dimensions half a megabyte, which stays in
// the second cache from the copy to the products.
constexpr uint64_t kBlockRows = 128;
// Blocks a thread takes at a time, so that results are merged seldom.
constexpr uint64_t kBlocksPerTask = 64;

bool Better(const Neighbour& a, const Neighbour& b) {
  return a.score != b.score ? a.score > b.score : a.row < b.row;
}

// The best so far; a heap whose first is the worst of them.
class Best {
 public:
  explicit Best(size_t top) : top_(top) {}

  void Offer(Neighbour found) {
    if (heap_.size() == top_) {
      if (!Better(found, heap_.front())) return;
      std::pop_heap(heap_.begin(), heap_.end(), Better);
      heap_.back() = found;
    } else {
      heap_.push_back(found);
    }
    std::push_heap(heap_.begin(), heap_.end(), Better);
  }
  void Merge(const Best& other) {
    for (const Neighbour& found : other.heap_) Offer(found);
  }
  std::vector<Neighbour> Take() {
    std::sort_heap(heap_.begin(), heap_.end(), Better);
    return std::move(heap_);
  }

 private:
  size_t top_;
  std::vector<Neighbour> heap_;
};

// Several sums side by side, which the compiler keeps in one register.
float SquaredLength(const float* values, int count) {
  constexpr int kLanes = 16;
  std::array<float, kLanes> sums = {};
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += values[i + lane] * values[i + lane];
  }
  float sum = 0;
  for (; i < count; ++i) sum += values[i] * values[i];
  for (const float lane : sums) sum += lane;
  return sum;
}

// One search: what its threads share.
class Search {
 public:
  Search(const VectorFile& file, absl::Span<const float> queries, Similarity similarity, int top)
      : file_(file),
        similarity_(similarity),
        num_queries_(queries.size() / static_cast<size_t>(file.dimensions())),
        best_(num_queries_, Best(static_cast<size_t>(top))),
        top_(top) {
    const cpu::WeightRows rows = {.data = queries.data(), .n = static_cast<int64_t>(num_queries_)};
    queries_ = cpu::PackedMatrix::Pack({&rows, 1}, file.dimensions(), /*pool=*/nullptr);
    for (size_t q = 0; q < num_queries_; ++q) {
      const float* query = queries.data() + q * static_cast<size_t>(file.dimensions());
      query_lengths_.push_back(std::sqrt(SquaredLength(query, file.dimensions())));
    }
  }

  void RunTask(uint64_t first, uint64_t end) {
    std::vector<float> rows(kBlockRows * static_cast<size_t>(file_.dimensions()));
    std::vector<float> scores(kBlockRows * num_queries_);
    std::vector<Best> best(num_queries_, Best(static_cast<size_t>(top_)));
    absl::Status status;
    for (; first < end && status.ok(); first += kBlockRows) {
      status =
          RunBlock(first, std::min(kBlockRows, end - first), rows.data(), scores.data(), &best);
    }
    const absl::MutexLock lock(&mutex_);
    // Of several errors the one that stands first in the file, whichever was found first.
    if (!status.ok() && first < error_at_) {
      error_at_ = first;
      status_ = status;
    }
    for (size_t q = 0; q < num_queries_; ++q) best_[q].Merge(best[q]);
  }

  // When all tasks have returned.
  absl::StatusOr<std::vector<std::vector<Neighbour>>> Take() {
    const absl::MutexLock lock(&mutex_);
    if (!status_.ok()) return status_;
    std::vector<std::vector<Neighbour>> results;
    for (Best& best : best_) results.push_back(best.Take());
    return results;
  }

 private:
  absl::Status RunBlock(uint64_t first, uint64_t count, float* rows, float* scores,
                        std::vector<Best>* best) {
    const int dimensions = file_.dimensions();
    const auto n = static_cast<int64_t>(num_queries_);
    if (absl::Status status = file_.Read(first, count, rows); !status.ok()) return status;
    cpu::Matmul(rows, dimensions, static_cast<int64_t>(count), queries_, {}, scores, n,
                /*pool=*/nullptr);
    for (uint64_t r = 0; r < count; ++r) {
      const float squared = SquaredLength(rows + r * static_cast<size_t>(dimensions), dimensions);
      const bool cosine = similarity_ == Similarity::kCosine;
      if (!std::isfinite(squared) || (cosine && squared == 0)) {
        return absl::DataLossError(absl::StrCat(file_.path(), ": row ", first + r, " ",
                                                squared == 0 ? "is zero" : "is not finite"));
      }
      const float length = std::sqrt(squared);
      for (size_t q = 0; q < num_queries_; ++q) {
        float score = scores[r * num_queries_ + q];
        if (cosine) score /= length * query_lengths_[q];
        (*best)[q].Offer({first + r, score});
      }
    }
    return absl::OkStatus();
  }

  const VectorFile& file_;
  const Similarity similarity_;
  const size_t num_queries_;
  cpu::PackedMatrix queries_;
  std::vector<float> query_lengths_;
  absl::Mutex mutex_;
  std::vector<Best> best_ ABSL_GUARDED_BY(mutex_);
  uint64_t error_at_ ABSL_GUARDED_BY(mutex_) = UINT64_MAX;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  const int top_;
};

}  // namespace

absl::StatusOr<std::vector<std::vector<Neighbour>>> FindNearest(const VectorFile& file,
                                                                absl::Span<const float> queries,
                                                                Similarity similarity, int top,
                                                                cpu::ThreadPool* pool) {
  if (file.rows() == 0)
    return absl::FailedPreconditionError(absl::StrCat(file.path(), ": has no rows"));
  const auto dimensions = static_cast<size_t>(file.dimensions());
  if (queries.empty() || queries.size() % dimensions != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("queries must have the ", dimensions, " dimensions of ", file.path()));
  }
  Search search(file, queries, similarity, top);
  constexpr uint64_t kTaskRows = kBlockRows * kBlocksPerTask;
  const uint64_t tasks = (file.rows() + kTaskRows - 1) / kTaskRows;
  cpu::ParallelFor(pool, static_cast<int64_t>(tasks), [&](int64_t task) {
    const uint64_t first = static_cast<uint64_t>(task) * kTaskRows;
    search.RunTask(first, std::min(file.rows(), first + kTaskRows));
  });
  return search.Take();
}

}  // namespace quiver::index
