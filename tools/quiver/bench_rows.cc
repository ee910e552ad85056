#include "tools/quiver/bench_rows.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/model/model_tensors.h"

namespace quiver {
namespace {

constexpr int kMixedDocuments = 2048;
constexpr double kMixedMedian = 180.0;
constexpr double kMixedDeviation = 0.8;
constexpr int kMixedCap = 2048;
constexpr int kMaxExtent = 1 << 24;

// SplitMix64.
class RandomStream {
 public:
  explicit RandomStream(uint64_t seed) : state_(seed) {}

  uint64_t Bits() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t x = state_;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
  }
  // In (0, 1).
  double Uniform() { return (static_cast<double>(Bits() >> 11) + 0.5) * 0x1p-53; }
  // Box and Muller's transform.
  double Normal() {
    const double radius = std::sqrt(-2.0 * std::log(Uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * Uniform());
  }

 private:
  uint64_t state_;
};

}  // namespace

int64_t BenchRow::num_tokens() const {
  return std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
}

int BenchRow::max_length() const { return *std::max_element(lengths.begin(), lengths.end()); }

std::vector<int> MixedLengths(int count) {
  RandomStream random(1);
  std::vector<int> lengths;
  for (int i = 0; i < count; ++i) {
    const double length = kMixedMedian * std::exp(kMixedDeviation * random.Normal());
    lengths.push_back(std::clamp(static_cast<int>(length), 1, kMixedCap));
  }
  return lengths;
}

absl::StatusOr<std::vector<BenchRow>> ParseBenchRows(absl::string_view text) {
  std::vector<BenchRow> rows;
  for (const absl::string_view name : absl::StrSplit(text, ',')) {
    if (name == "mixed") {
      rows.push_back({"mixed", MixedLengths(kMixedDocuments)});
      continue;
    }
    const std::vector<absl::string_view> extents = absl::StrSplit(name, 'x');
    int sequences = 0, tokens = 0;
    if (extents.size() != 2 || !absl::SimpleAtoi(extents[0], &sequences) ||
        !absl::SimpleAtoi(extents[1], &tokens) || sequences < 1 || tokens < 1 ||
        int64_t{sequences} * tokens > kMaxExtent) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a row must be SEQUENCESxTOKENS, such as 64x512, or mixed, is '", name, "'"));
    }
    rows.push_back({std::string(name), std::vector<int>(static_cast<size_t>(sequences), tokens)});
  }
  return rows;
}

absl::StatusOr<std::vector<PackedBatch>> PackRow(const BenchRow& row, const BackendInfo& limits,
                                                 int vocab_size, int dimensions) {
  if (row.max_length() > limits.max_sequence_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("a sequence may have at most ", limits.max_sequence_tokens,
                     " tokens here, one of this row has ", row.max_length()));
  }
  RandomStream random(2);
  std::vector<PackedBatch> batches(1);
  std::vector<TokenId> ids;
  for (const int length : row.lengths) {
    if (batches.back().num_tokens() + length > limits.max_batch_tokens ||
        batches.back().num_sequences() == limits.max_batch_sequences) {
      batches.emplace_back();
    }
    ids.resize(static_cast<size_t>(length));
    for (TokenId& id : ids) {
      id = static_cast<TokenId>(random.Bits() % static_cast<uint64_t>(vocab_size));
    }
    batches.back().Append(ids, {.dimensions = dimensions});
  }
  return batches;
}

double PassFlop(const ModelConfig& config, const std::vector<int>& lengths) {
  const double linear = 2.0 * static_cast<double>(NumLinearParameters(config));
  const double pair = 4.0 * config.head_dim * config.num_heads * config.num_layers;
  double flop = 0;
  for (const double length : lengths) {
    const double pairs =
        config.family == Family::kQwen3 ? length * (length + 1) / 2 : length * length;
    flop += linear * length + pair * pairs;
  }
  return flop;
}

}  // namespace quiver
