#include "tools/quiver/engine_bench.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/model/model_tensors.h"

namespace quiver {
namespace {

using Clock = std::chrono::steady_clock;

double MsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// Of values that are not empty.
template <typename T>
T Median(std::vector<T> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

CeilingRates MedianRates(const std::vector<CeilingRates>& turns) {
  const auto median = [&turns](auto field) {
    std::vector<double> values;
    for (const CeilingRates& turn : turns) values.push_back(field(turn));
    return Median(std::move(values));
  };
  CeilingRates rates;
  for (const auto& entry : turns.front().linear_tokens_per_s) {
    rates.linear_tokens_per_s[entry.first] = median(
        [&entry](const CeilingRates& turn) { return turn.linear_tokens_per_s.at(entry.first); });
  }
  rates.matmul_tflops = median([](const CeilingRates& turn) { return turn.matmul_tflops; });
  rates.copy_tb_per_s = median([](const CeilingRates& turn) { return turn.copy_tb_per_s; });
  return rates;
}

}  // namespace

EngineBench::EngineBench(EngineBenchOptions options, Backend* backend, const DeviceMonitor* monitor,
                         std::function<void(absl::string_view)> progress)
    : options_(std::move(options)),
      backend_(backend),
      monitor_(monitor),
      progress_(std::move(progress)) {}

absl::StatusOr<std::vector<PackedBatch>> EngineBench::Pack(const BenchRow& row) const {
  return PackRow(row, backend_->info(), options_.config.vocab_size, options_.config.hidden_size);
}

absl::StatusOr<double> EngineBench::Pass(const std::vector<PackedBatch>& batches,
                                         std::vector<double>* step_ms) {
  double ms = 0;
  for (const PackedBatch& batch : batches) {
    PackedBatch copy = batch;
    const Clock::time_point start = Clock::now();
    absl::StatusOr<std::unique_ptr<quiver::Pass>> pass = backend_->Begin(std::move(copy));
    if (!pass.ok()) return pass.status();
    const absl::StatusOr<bool> done = (*pass)->Run(std::numeric_limits<int64_t>::max());
    if (!done.ok()) return done.status();
    if (!*done) return absl::InternalError("the pass stopped before its end");
    const std::vector<absl::StatusOr<EncodedVector>> vectors = (*pass)->Finish();
    ms += MsSince(start);
    for (const absl::StatusOr<EncodedVector>& vector : vectors) {
      if (!vector.ok()) return vector.status();
    }
    const std::vector<double> steps = (*pass)->StepMs();
    step_ms->insert(step_ms->end(), steps.begin(), steps.end());
  }
  return ms;
}

void EngineBench::WarmUp(const BenchRow& row) {
  progress_(absl::StrCat(row.name, ": warm-up"));
  const absl::StatusOr<std::vector<PackedBatch>> batches = Pack(row);
  std::vector<double> step_ms;
  if (batches.ok()) Pass(*batches, &step_ms).IgnoreError();
}

double EngineBench::FloorMs(const std::vector<PackedBatch>& batches,
                            const CeilingRates& rates) const {
  const double weight_bytes =
      static_cast<double>(NumLinearParameters(options_.config)) * options_.weight_element_bytes;
  double ms = 0;
  for (const PackedBatch& batch : batches) {
    std::vector<int> lengths;
    for (int i = 0; i < batch.num_sequences(); ++i) {
      lengths.push_back(batch.cu_seqlens[i + 1] - batch.cu_seqlens[i]);
    }
    ms += std::max(PassFlop(options_.config, lengths) / rates.matmul_tflops * 1e-9,
                   weight_bytes / rates.copy_tb_per_s * 1e-9);
  }
  return ms;
}

RowResult EngineBench::Measure(const BenchRow& row) {
  RowResult result;
  result.name = row.name;
  result.lengths = row.lengths;
  result.tokens = row.num_tokens();
  const absl::StatusOr<std::vector<PackedBatch>> batches = Pack(row);
  if (!batches.ok()) {
    result.status = batches.status();
    return result;
  }
  result.batches = static_cast<int>(batches->size());

  std::vector<CeilingRates> turns;
  std::vector<int> clocks;
  std::vector<double> powers;
  std::vector<double> step_ms;
  double total_ms = 0;
  const auto enough = [&] {
    return total_ms >= 1e3 * options_.seconds_per_row &&
           result.pass_ms.size() >= static_cast<size_t>(kMinPasses);
  };
  // What ran before, ceilings of another row among it, may have left caches and clocks otherwise.
  if (const absl::StatusOr<double> first = Pass(*batches, &step_ms); !first.ok()) {
    result.status = first.status();
    return result;
  }
  step_ms.clear();
  while (!enough()) {
    for (double turn_ms = 0; turn_ms < 1e3 * options_.seconds_per_turn && !enough();) {
      const absl::StatusOr<double> ms = Pass(*batches, &step_ms);
      if (!ms.ok()) {
        result.status = ms.status();
        return result;
      }
      result.pass_ms.push_back(*ms);
      turn_ms += *ms;
      total_ms += *ms;
    }
    if (monitor_ != nullptr) {
      clocks.push_back(monitor_->SmClockMhz());
      powers.push_back(monitor_->PowerWatts());
    }
    if (ceilings_ != nullptr) {
      absl::StatusOr<CeilingRates> rates = ceilings_->Measure();
      if (!rates.ok()) {
        result.status = rates.status();
        return result;
      }
      turns.push_back(*std::move(rates));
    }
    progress_(absl::StrFormat("%s: %.1f of %.1f s, %d passes", row.name, total_ms * 1e-3,
                              options_.seconds_per_row, result.pass_ms.size()));
  }

  result.median_ms = Median(result.pass_ms);
  result.best_ms = *std::min_element(result.pass_ms.begin(), result.pass_ms.end());
  result.tokens_per_s = 1e3 * static_cast<double>(result.tokens) / result.median_ms;
  if (!step_ms.empty()) {
    result.steps = static_cast<int64_t>(step_ms.size());
    result.longest_step_ms = *std::max_element(step_ms.begin(), step_ms.end());
    result.median_step_ms = Median(std::move(step_ms));
  }
  if (!clocks.empty()) {
    result.sm_clock_mhz = Median(std::move(clocks));
    result.power_watts = Median(std::move(powers));
  }
  if (!turns.empty()) {
    const CeilingRates rates = MedianRates(turns);
    for (const auto& entry : rates.linear_tokens_per_s) {
      result.linear_ceiling_tokens_per_s =
          std::max(result.linear_ceiling_tokens_per_s, entry.second);
    }
    result.floor_ms = FloorMs(*batches, rates);
    result.ceilings = rates;
  }
  return result;
}

}  // namespace quiver
