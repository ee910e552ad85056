// What an operator may say about the device, and how it is written.
#ifndef QUIVER_ENGINE_RUN_DEVICE_OPTIONS_H_
#define QUIVER_ENGINE_RUN_DEVICE_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace quiver {

// "auto", "cpu", "cuda" or "cuda:N".
struct DeviceChoice {
  // kAuto: the first CUDA device if Quiver runs on it and runs the model there, else the CPU.
  enum class Kind : uint8_t { kAuto, kCpu, kCuda };
  Kind kind = Kind::kAuto;
  int ordinal = 0;

  friend bool operator==(const DeviceChoice&, const DeviceChoice&) = default;
};
// What ParseDeviceChoice takes, for messages.
inline constexpr char kDeviceChoices[] = "auto, cpu, cuda or cuda:N";
std::optional<DeviceChoice> ParseDeviceChoice(absl::string_view text);
std::string DeviceChoiceText(const DeviceChoice& choice);

// An upper bound of the device memory of the whole process as the driver counts it: bytes (plain,
// or with KiB, MiB or GiB behind), or a fraction of the card's memory in (0, 1], written with a
// point. Neither set: nearly all that is free.
struct MemoryBudget {
  int64_t bytes = 0;
  double fraction = 0;

  // Of a card with `total_bytes`.
  int64_t BytesOf(int64_t total_bytes) const;

  friend bool operator==(const MemoryBudget&, const MemoryBudget&) = default;
};
// Room for some ten instructions of a model of 4B.
inline constexpr int64_t kDefaultPrefixCacheBytes = int64_t{64} << 20;

inline constexpr char kMemoryBudgets[] =
    "bytes (such as 8GiB) or a fraction of the card above 0 and up to 1 (such as 0.9)";
std::optional<MemoryBudget> ParseMemoryBudget(absl::string_view text);
std::string MemoryBudgetText(const MemoryBudget& budget);

// What weights and activations are on a CUDA device; sums are F32.
enum class ComputeType : uint8_t { kBfloat16, kFloat16 };
inline constexpr char kComputeTypes[] = "bfloat16 or float16";
std::optional<ComputeType> ParseComputeType(absl::string_view text);

// What inputs of products are, where there are many rows of them. kAuto: FP8 for FP8 weights, 16
// bits for all others.
enum class ActivationType : uint8_t { kAuto, kHalf, kFp8 };
inline constexpr char kActivationTypes[] = "auto, 16bit or fp8";
std::optional<ActivationType> ParseActivationType(absl::string_view text);

struct CudaOptions {
  ComputeType dtype = ComputeType::kBfloat16;
  ActivationType activation = ActivationType::kAuto;
  MemoryBudget memory_budget;
  // Kernels for every device in place of those for this one's architecture.
  bool force_portable = false;
  // Where measured algorithms are kept between starts; empty for quiver/ under the user's cache
  // folder (XDG_CACHE_HOME, else .cache in HOME).
  std::string cache_dir;
  // Random weights made on the device in place of a checkpoint's, for measurements of speed.
  bool dummy_weights = false;
  // Of random weights, the matrices are int4 with scales for groups of so many columns: 32, 64 or
  // 128. 0: they are of the dtype.
  int dummy_int4_group = 0;
  // Of random weights, the matrices are FP8 where the device multiplies by those.
  bool dummy_fp8 = false;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_DEVICE_OPTIONS_H_
