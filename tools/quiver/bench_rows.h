// What a bench runs: rows of random sequences, packed into batches.
#ifndef QUIVER_TOOLS_QUIVER_BENCH_ROWS_H_
#define QUIVER_TOOLS_QUIVER_BENCH_ROWS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/model/model_config.h"
#include "engine/run/backend.h"
#include "engine/run/packed_batch.h"

namespace quiver {

struct BenchRow {
  // As it stands on the command line.
  std::string name;
  // Tokens of each sequence.
  std::vector<int> lengths;

  int64_t num_tokens() const;
  int max_length() const;
};

// Rows between commas: SEQUENCESxTOKENS, or "mixed" for 2048 documents of MixedLengths().
// INVALID_ARGUMENT shows the row that is none.
absl::StatusOr<std::vector<BenchRow>> ParseBenchRows(absl::string_view text);

// Log-normal lengths with a median of 180 and a deviation of 0.8 of the logarithm, at most 2048;
// the same ones every time.
std::vector<int> MixedLengths(int count);

// Random ids below `vocab_size`, packed in order into batches that `limits` allows, for vectors of
// `dimensions`. INVALID_ARGUMENT if a sequence is longer than it allows.
absl::StatusOr<std::vector<PackedBatch>> PackRow(const BenchRow& row, const BackendInfo& limits,
                                                 int vocab_size, int dimensions);

// Floating-point operations of a pass over `lengths`, all layers in full: two for each linear
// parameter and token, and attention's 4 * head_dim * num_heads for each visible pair of tokens.
double PassFlop(const ModelConfig& config, const std::vector<int>& lengths);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_BENCH_ROWS_H_
