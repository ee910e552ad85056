#include "engine/run/cpu_linear_rows.h"

#include <algorithm>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "engine/model/stored_floats.h"

namespace quiver {
namespace {

// Outputs that a thread reads at a time.
constexpr int64_t kOutputs = 64;

// Inputs that share a scale, and how many groups of them an output has.
int64_t GroupInputs(const LinearWeight& linear) {
  return linear.format() == WeightFormat::kInt4 ? linear.group_inputs() : linear.block_inputs();
}
int64_t NumGroups(const LinearWeight& linear) {
  const int64_t group = GroupInputs(linear);
  return (linear.inputs() + group - 1) / group;
}

bool AreCodedAlike(const LinearWeight& a, const LinearWeight& b) {
  return a.format() == b.format() && a.format() != WeightFormat::kFloat &&
         GroupInputs(a) == GroupInputs(b) && a.column_inputs() == b.column_inputs();
}

// Calls work(begin, count) for runs of outputs.
template <typename Work>
void ForOutputs(const LinearWeight& linear, cpu::ThreadPool* pool, const Work& work) {
  cpu::ParallelFor(pool, (linear.outputs() + kOutputs - 1) / kOutputs, [&](int64_t i) {
    work(i * kOutputs, std::min(kOutputs, linear.outputs() - i * kOutputs));
  });
}

}  // namespace

absl::StatusOr<CpuLinearRows> CpuLinearRows::Of(const std::vector<LinearWeight>& linears,
                                                cpu::ThreadPool* pool) {
  for (const LinearWeight& linear : linears) {
    absl::Mutex mutex;
    absl::Status status;
    ForOutputs(linear, pool, [&](int64_t begin, int64_t count) {
      const absl::Status some = linear.CheckCodes(begin, count);
      absl::MutexLock lock(&mutex);
      status.Update(some);
    });
    if (!status.ok()) return status;
  }
  CpuLinearRows rows;
  const bool coded = std::all_of(linears.begin(), linears.end(), [&](const LinearWeight& linear) {
    return AreCodedAlike(linears.front(), linear);
  });
  if (!coded) {
    rows.ReadFloats(linears, pool);
    return rows;
  }
  rows.ReadCodes(linears, pool);
  return rows;
}

void CpuLinearRows::ReadCodes(const std::vector<LinearWeight>& linears, cpu::ThreadPool* pool) {
  const LinearWeight& first = linears.front();
  const int64_t k = first.inputs();
  const int64_t groups = NumGroups(first);
  const std::vector<int32_t>& order = first.column_inputs();
  input_groups_.resize(static_cast<size_t>(k));
  for (int64_t j = 0; j < k; ++j) {
    input_groups_[order.empty() ? j : order[j]] = static_cast<uint16_t>(j / GroupInputs(first));
  }
  codes_.resize(linears.size());
  for (size_t i = 0; i < linears.size(); ++i) {
    const LinearWeight& linear = linears[i];
    const int64_t n = linear.outputs();
    Codes& to = codes_[i];
    to.scales.resize(static_cast<size_t>(n * groups));
    cpu::CodedRows row = {.coding = cpu::Coding::kFp8,
                          .scales = to.scales.data(),
                          .num_groups = groups,
                          .input_groups = input_groups_.data(),
                          .n = n};
    to.codes.resize(static_cast<size_t>(n * k));
    if (linear.format() == WeightFormat::kInt4) {
      to.zero_points.resize(static_cast<size_t>(n * groups));
      ForOutputs(linear, pool, [&](int64_t begin, int64_t count) {
        linear.ReadInt4(begin, count, to.codes.data() + begin * k,
                        to.zero_points.data() + begin * groups, to.scales.data() + begin * groups);
        if (order.empty()) return;
        // Back from the order of groups to that of the inputs.
        std::vector<uint8_t> sorted(static_cast<size_t>(k));
        for (int64_t r = begin; r < begin + count; ++r) {
          uint8_t* codes = to.codes.data() + r * k;
          std::copy_n(codes, k, sorted.data());
          for (int64_t j = 0; j < k; ++j) codes[order[j]] = sorted[j];
        }
      });
      row.coding = cpu::Coding::kInt4;
      row.zero_points = to.zero_points.data();
    } else {
      ForOutputs(linear, pool, [&](int64_t begin, int64_t count) {
        linear.ReadFp8(begin, count, to.codes.data() + begin * k,
                       to.scales.data() + begin * groups);
      });
    }
    row.codes = to.codes.data();
    coded_.push_back(row);
  }
}

void CpuLinearRows::ReadFloats(const std::vector<LinearWeight>& linears, cpu::ThreadPool* pool) {
  dequantized_.resize(linears.size());
  for (size_t i = 0; i < linears.size(); ++i) {
    const LinearWeight& linear = linears[i];
    if (linear.format() == WeightFormat::kFloat) {
      floats_.push_back(
          {StoredTypeOf(linear.stored().dtype), linear.stored().data, linear.outputs()});
      continue;
    }
    std::vector<float>& values = dequantized_[i];
    values.resize(static_cast<size_t>(linear.outputs() * linear.inputs()));
    ForOutputs(linear, pool, [&](int64_t begin, int64_t count) {
      linear.Dequantize(begin, count, values.data() + begin * linear.inputs());
    });
    floats_.push_back({cpu::StoredType::kF32, values.data(), linear.outputs()});
  }
}

}  // namespace quiver
