#include "engine/run/cuda/step_plan.h"

#include <algorithm>

#include "engine/run/cuda/activation_layout.h"

namespace quiver {
namespace {

// Of a kernel that has next to nothing to do.
constexpr double kKernelUs = 3;
constexpr double kKernelsOfFinish = 8;
// Of a tile of one head, beside its operations: its queries are read and its output is written.
constexpr double kAttentionItemUs = 0.025;
constexpr int64_t kChunkMultiple = 128;

// Dense 16-bit multiply-adds with F32 sums, twice, a clock and multiprocessor.
double FlopPerClock(int major, int minor) {
  if (major == 8) return minor == 0 ? 2048 : 1024;
  return major == 9 ? 4096 : 2048;
}

}  // namespace

DeviceRates DeviceRates::Of(int compute_major, int compute_minor, int multiprocessors,
                            int clock_khz, AttentionPath path) {
  const double peak_per_us =
      FlopPerClock(compute_major, compute_minor) * multiprocessors * clock_khz / 1e3;
  // Under sustained load the clock falls below the one that is stated.
  DeviceRates rates;
  rates.linear_flop_per_us = 0.6 * peak_per_us;
  // Of the portable path on Hopper and later cards less than on those it is made for.
  const double portable = compute_major == 8 ? 0.45 : 0.28;
  rates.attention_flop_per_us = (path == AttentionPath::kHopper ? 0.58 : portable) * peak_per_us;
  return rates;
}

std::vector<PassOp> ListOps(const ForwardShape& shape, const PassWork& work,
                            const DeviceRates& rates) {
  using Kind = PassOp::Kind;
  std::vector<PassOp> ops;
  const int64_t chunks = (work.tokens + work.chunk_tokens - 1) / work.chunk_tokens;
  const int64_t chunk =
      std::min(AlignUp((work.tokens + chunks - 1) / chunks, kChunkMultiple), work.chunk_tokens);
  const auto linear_us = [&](int64_t rows, int64_t weights) {
    return 2.0 * static_cast<double>(rows) * static_cast<double>(weights) /
           rates.linear_flop_per_us;
  };
  const auto add_chunks = [&](Kind kind, int layer, int64_t weights) {
    for (int64_t begin = 0; begin < work.tokens; begin += chunk) {
      const int64_t rows = std::min(chunk, work.tokens - begin);
      ops.push_back(
          {kind, layer, begin, rows, kKernelsOfFinish * kKernelUs + linear_us(rows, weights)});
    }
  };
  const auto add_launches = [&](Kind kind, int layer,
                                const std::vector<AttentionLaunch>& launches) {
    for (size_t i = 0; i < launches.size(); ++i) {
      ops.push_back({kind, layer, static_cast<int64_t>(i), 0,
                     kKernelUs + kAttentionItemUs * launches[i].num_tiles * launches[i].num_heads +
                         launches[i].flop / rates.attention_flop_per_us});
    }
  };

  add_chunks(Kind::kEmbed, 0, shape.projection_weights());
  const int last = shape.num_layers - 1;
  for (int layer = 0; layer <= last; ++layer) {
    if (layer == last && shape.prune_last) {
      const double us = kKernelsOfFinish * kKernelUs;
      ops.push_back({Kind::kPooledQuery, layer, 0, work.sequences, us});
      add_launches(Kind::kPooledAttend, layer, *work.pooled_launches);
      ops.push_back({Kind::kPooledFinish, layer, 0, work.sequences,
                     us + linear_us(work.sequences, shape.finish_weights())});
      break;
    }
    add_launches(Kind::kAttend, layer, *work.launches);
    add_chunks(Kind::kFinish, layer,
               shape.finish_weights() + (layer < last ? shape.projection_weights() : 0));
  }
  ops.push_back({Kind::kEncode, last, 0, work.sequences, 2 * kKernelUs});
  return ops;
}

std::vector<size_t> CutSteps(const std::vector<PassOp>& ops, double max_us) {
  std::vector<size_t> ends;
  double us = 0;
  for (size_t i = 0; i < ops.size(); ++i) {
    if (i > 0 && us + ops[i].us > max_us) {
      ends.push_back(i);
      us = 0;
    }
    us += ops[i].us;
  }
  ends.push_back(ops.size());
  return ends;
}

}  // namespace quiver
