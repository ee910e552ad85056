#include "engine/model/random_weights.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/model/random_bits.h"
#include "kernels/cpu/stored_type.h"

namespace quiver {
namespace {

// Deviation of a token's attention scores.
constexpr double kScoreDeviation = 3.0;
constexpr double kNormDeviation = 0.05;
constexpr double kBiasDeviation = 0.02;

struct Distribution {
  float mean = 0.0f;
  float deviation = 1.0f;
};

Distribution DistributionOf(const ModelTensor& tensor, int num_layers) {
  const double inputs = static_cast<double>(tensor.shape.back());
  // Of queries and of keys alike.
  const double gain = std::sqrt(kScoreDeviation);
  double mean = 0.0;
  double deviation = 1.0;
  switch (tensor.role) {
    case TensorRole::kEmbedding:
      break;
    case TensorRole::kQueryKey:
      deviation = gain / std::sqrt(inputs);
      break;
    case TensorRole::kLinear:
      deviation = 1.0 / std::sqrt(inputs);
      break;
    case TensorRole::kBranchEnd:
      deviation = 1.0 / std::sqrt(inputs * 2 * num_layers);
      break;
    case TensorRole::kNorm:
      mean = 1.0;
      deviation = kNormDeviation;
      break;
    case TensorRole::kQueryKeyNorm:
      mean = gain;
      deviation = gain * kNormDeviation;
      break;
    case TensorRole::kBias:
      deviation = kBiasDeviation;
      break;
  }
  return {static_cast<float>(mean), static_cast<float>(deviation)};
}

// The sum of the four 16-bit parts of `bits`.
uint32_t SumOfParts(uint64_t bits) {
  const uint64_t pairs = (bits & 0x0000ffff0000ffff) + ((bits >> 16) & 0x0000ffff0000ffff);
  return static_cast<uint32_t>(pairs) + static_cast<uint32_t>(pairs >> 32);
}

// Element `index` of a stream of mean 0 and deviation 1: the sum of eight uniform numbers, which is
// normal but for its tails (none beyond 4.9) and, in integers, the same on every machine.
float NearlyNormal(uint64_t stream, uint64_t index) {
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15;
  const uint64_t first = stream + 2 * index * kGolden;
  const uint32_t sum = SumOfParts(Mix(first)) + SumOfParts(Mix(first + kGolden));
  // Eight times the mean and the deviation of 0 ... 65535.
  constexpr float kMean = 8 * 65535 / 2.0f;
  constexpr float kDeviation = 53509.9f;
  return (static_cast<float>(sum) - kMean) * (1.0f / kDeviation);
}

template <typename T, typename Convert>
void FillRange(uint64_t stream, Distribution distribution, int64_t begin, int64_t count,
               Convert convert, T* out) {
  for (int64_t i = 0; i < count; ++i) {
    const float value = NearlyNormal(stream, static_cast<uint64_t>(begin + i));
    out[i] = convert(distribution.mean + distribution.deviation * value);
  }
}

}  // namespace

absl::StatusOr<RandomTensors> RandomTensors::Create(const ModelConfig& config, DType dtype,
                                                    uint64_t seed) {
  if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
    return absl::InvalidArgumentError(
        absl::StrCat("random weights must be F32, F16 or BF16, not ", DTypeName(dtype)));
  }
  return RandomTensors(config.num_layers, dtype, seed);
}

void RandomTensors::Fill(const ModelTensor& tensor, int64_t begin, int64_t count, std::byte* out,
                         cpu::ThreadPool* pool) const {
  constexpr int64_t kBlock = 1 << 16;
  const Distribution distribution = DistributionOf(tensor, num_layers_);
  const uint64_t stream = Mix(HashName(tensor.name) + Mix(seed_));
  cpu::ParallelFor(pool, (count + kBlock - 1) / kBlock, [&](int64_t block) {
    const int64_t first = block * kBlock;
    const int64_t n = std::min(kBlock, count - first);
    std::byte* const to = out + first * static_cast<int64_t>(DTypeSize(dtype_));
    if (dtype_ == DType::kF32) {
      FillRange(
          stream, distribution, begin + first, n, [](float x) { return x; },
          reinterpret_cast<float*>(to));
    } else if (dtype_ == DType::kF16) {
      FillRange(stream, distribution, begin + first, n, cpu::FloatToHalf,
                reinterpret_cast<uint16_t*>(to));
    } else {
      FillRange(stream, distribution, begin + first, n, cpu::FloatToBfloat16,
                reinterpret_cast<uint16_t*>(to));
    }
  });
}

absl::StatusOr<std::shared_ptr<const Weights>> RandomWeights(const ModelConfig& config, DType dtype,
                                                             uint64_t seed, cpu::ThreadPool* pool) {
  const absl::StatusOr<RandomTensors> random = RandomTensors::Create(config, dtype, seed);
  if (!random.ok()) return random.status();
  const std::vector<ModelTensor> tensors = ModelTensors(config);
  size_t total = 0;
  for (const ModelTensor& tensor : tensors) {
    total += static_cast<size_t>(random->SizeBytes(tensor));
  }

  void* const data =
      mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("there is no memory for random weights of ", total, " bytes"));
  }
  std::shared_ptr<const void> memory(
      data, [total](const void* begin) { munmap(const_cast<void*>(begin), total); });

  std::map<std::string, TensorView, std::less<>> views;
  std::byte* next = static_cast<std::byte*>(data);
  for (const ModelTensor& tensor : tensors) {
    random->Fill(tensor, 0, tensor.num_elements(), next, pool);
    const auto size = static_cast<size_t>(random->SizeBytes(tensor));
    views[tensor.name] = {dtype, tensor.shape, next, size, "random weights"};
    next += size;
  }
  return Weights::InMemory(std::move(views), std::move(memory));
}

}  // namespace quiver
