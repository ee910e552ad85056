#include "engine/run/cuda/cuda_device.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "engine/run/cuda/cuda_backend.h"
#include "engine/run/cuda/cuda_status.h"
#include "engine/run/cuda/device_memory.h"
#include "kernels/cuda/few_rows_matmul.h"

namespace quiver {
namespace {

constexpr int kMinComputeMajor = 8;
// Of a context, where the driver does not tell what was in use before it.
constexpr int64_t kUsualContextBytes = int64_t{512} << 20;

// No kernel here calls by pointer or recurs, so none needs a stack of unknown size. The usual 1024
// bytes a thread are kept for every thread that the card can run: 277 MB on 132 multiprocessors.
constexpr size_t kStackBytes = 64;

int Attribute(cudaDeviceAttr attribute, int ordinal) {
  int value = 0;
  cudaDeviceGetAttribute(&value, attribute, ordinal);
  return value;
}

std::string UuidText(const cudaUUID_t& uuid) {
  const std::string hex = absl::BytesToHexString(absl::string_view(uuid.bytes, sizeof(uuid.bytes)));
  return absl::StrCat("GPU-", hex.substr(0, 8), "-", hex.substr(8, 4), "-", hex.substr(12, 4), "-",
                      hex.substr(16, 4), "-", hex.substr(20));
}

}  // namespace

absl::Status CheckCudaDevice(int ordinal) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    // The error is remembered by the library, and would come up in a later call.
    cudaGetLastError();
    return absl::FailedPreconditionError(
        absl::StrCat("there is no CUDA device: ",
                     error != cudaSuccess ? cudaGetErrorString(error) : "the driver knows none"));
  }
  if (ordinal < 0 || ordinal >= count) {
    return absl::FailedPreconditionError(
        absl::StrCat("there is no CUDA device ", ordinal, "; there are ", count, ", from 0 on"));
  }
  const int major = Attribute(cudaDevAttrComputeCapabilityMajor, ordinal);
  if (major < kMinComputeMajor) {
    return absl::FailedPreconditionError(
        absl::StrCat("CUDA device ", ordinal, " has compute capability ", major, ".",
                     Attribute(cudaDevAttrComputeCapabilityMinor, ordinal), "; Quiver needs ",
                     kMinComputeMajor, ".0 or higher"));
  }
  return absl::OkStatus();
}

absl::StatusOr<CudaDevice> OpenCudaDevice(int ordinal, bool force_portable) {
  if (absl::Status status = CheckCudaDevice(ordinal); !status.ok()) return status;
  CudaDevice device;
  device.ordinal = ordinal;
  const std::optional<int64_t> before = UsedBytesWithoutContext(ordinal);
  CudaCalls calls;
  calls(cudaSetDevice(ordinal), "choosing the device");
  calls(cudaFree(nullptr), "making a context");
  calls(cudaDeviceSetLimit(cudaLimitStackSize, kStackBytes), "limiting stacks");
  cudaDeviceProp properties = {};
  calls(cudaGetDeviceProperties(&properties, ordinal), "asking for the device's properties");
  if (!force_portable) calls(BestAttentionPath(&device.path), "asking for the device's path");
  if (!calls.ok()) return calls.status();
  const absl::StatusOr<DeviceUse> use = CurrentDeviceUse();
  if (!use.ok()) return use.status();

  device.few_rows_bytes =
      static_cast<int64_t>(FewRowsWorkspaceBytes(properties.multiProcessorCount));
  device.name = properties.name;
  device.uuid = UuidText(properties.uuid);
  device.compute_major = properties.major;
  device.compute_minor = properties.minor;
  device.total_bytes = use->total_bytes;
  // Both by the same count: the driver's library and the context do not agree on what the driver
  // keeps for itself.
  const std::optional<int64_t> after = UsedBytesWithoutContext(ordinal);
  device.context_bytes = before.has_value() && after.has_value() && *after > *before
                             ? *after - *before
                             : kUsualContextBytes;
  device.context_bytes = std::min(device.context_bytes, use->used_bytes);
  device.foreign_bytes = use->used_bytes - device.context_bytes;
  device.rates = DeviceRates::Of(properties.major, properties.minor, properties.multiProcessorCount,
                                 Attribute(cudaDevAttrClockRate, ordinal), device.path);
  return device;
}

std::string CudaDevice::Description() const {
  return absl::StrCat("cuda:", ordinal, " (", name, ", sm_", compute_major, compute_minor, ", ",
                      path == AttentionPath::kHopper ? "wgmma" : "mma.sync", ")");
}

std::string CudaDevice::Identity() const {
  int driver = 0;
  cudaDriverGetVersion(&driver);
  return absl::StrCat(name, " sm_", compute_major, compute_minor, " driver ", driver, " cublaslt ",
                      cublasLtGetVersion());
}

}  // namespace quiver
