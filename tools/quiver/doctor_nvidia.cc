#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/run/dynamic_library.h"
#include "tools/quiver/doctor_checks.h"

namespace quiver {
namespace {

// What the CUDA engine is built with and for.
constexpr int kCudaMajor = 13;
constexpr int kMinComputeMajor = 8;
constexpr bool kBuiltWithCuda = QUIVER_HAS_CUDA != 0;

// CUdevice_attribute.
constexpr int kComputeMajor = 75, kComputeMinor = 76;

int64_t FreeBytes(const DynamicLibrary& nvml, int device) {
  void* handle = nullptr;
  NvmlMemory memory;
  return nvml.Call("nvmlDeviceGetHandleByIndex_v2", static_cast<unsigned>(device), &handle) &&
                 nvml.Call("nvmlDeviceGetMemoryInfo", handle, &memory)
             ? static_cast<int64_t>(memory.free)
             : -1;
}

Finding CheckDevice(const DynamicLibrary& cuda, const DynamicLibrary& nvml, int device) {
  char name[128] = "";
  size_t bytes = 0;
  int major = 0, minor = 0;
  cuda.Call("cuDeviceGetName", static_cast<char*>(name), static_cast<int>(sizeof(name)), device);
  cuda.Call("cuDeviceTotalMem_v2", &bytes, device);
  cuda.Call("cuDeviceGetAttribute", &major, kComputeMajor, device);
  cuda.Call("cuDeviceGetAttribute", &minor, kComputeMinor, device);
  Finding finding{.name = absl::StrCat("gpu ", device),
                  .verdict = Verdict::kOk,
                  .detail = absl::StrCat(name, ", compute capability ", major, ".", minor, ", ",
                                         HumanBytes(static_cast<int64_t>(bytes))),
                  .advice = ""};
  if (const int64_t free = FreeBytes(nvml, device); free >= 0) {
    absl::StrAppend(&finding.detail, ", ", HumanBytes(free), " free");
  }
  if (major < kMinComputeMajor) {
    finding.verdict = Verdict::kWarning;
    finding.advice = absl::StrCat("Quiver's kernels need compute capability ", kMinComputeMajor,
                                  ".0 (Ampere) or more; the CPU is used");
  }
  return finding;
}

Finding CheckCublas(bool wanted) {
  Finding finding{.name = "cublas", .verdict = Verdict::kOk, .detail = "", .advice = ""};
  const std::string file = absl::StrCat("libcublasLt.so.", kCudaMajor);
  const char* home = std::getenv("CUDA_HOME");
  for (const std::string& folder :
       {std::string(), absl::StrCat(home != nullptr ? home : "/usr/local/cuda", "/lib64/")}) {
    const DynamicLibrary cublas(folder + file);
    using Version = size_t (*)();
    if (const auto version = reinterpret_cast<Version>(cublas.Find("cublasLtGetVersion"))) {
      finding.detail = absl::StrCat(folder, file, ", version ", version());
      return finding;
    }
  }
  finding.detail = absl::StrCat(file, " not found");
  if (!wanted) {
    absl::StrAppend(&finding.detail, "; only a GPU needs it");
    return finding;
  }
  finding.verdict = Verdict::kWarning;
  finding.advice =
      absl::StrCat("install cuBLAS ", kCudaMajor, " (tools/cuda-toolkit gets it, or the ",
                   "Python package nvidia-cublas) and put it on LD_LIBRARY_PATH");
  return finding;
}

// The first line of what `nvcc --version` says that names the release, or nothing.
std::string NvccRelease(const std::string& nvcc) {
  const auto close = [](std::FILE* pipe) { pclose(pipe); };
  const std::unique_ptr<std::FILE, decltype(close)> pipe(
      popen(absl::StrCat("'", nvcc, "' --version 2> /dev/null").c_str(), "r"), close);
  char line[256];
  while (pipe != nullptr && std::fgets(line, sizeof(line), pipe.get()) != nullptr) {
    const std::string text = line;
    if (const size_t at = text.find("release "); at != std::string::npos) {
      return text.substr(at, text.find_first_of(",\n", at) - at);
    }
  }
  return "";
}

Finding CheckNvcc(bool wanted) {
  Finding finding{.name = "nvcc", .verdict = Verdict::kOk, .detail = "", .advice = ""};
  const char* path = std::getenv("PATH");
  const char* home = std::getenv("CUDA_HOME");
  std::vector<std::string> folders = absl::StrSplit(path != nullptr ? path : "", ':');
  folders.push_back(absl::StrCat(home != nullptr ? home : "/usr/local/cuda", "/bin"));
  for (const std::string& folder : folders) {
    const std::string nvcc = absl::StrCat(folder, "/nvcc");
    if (access(nvcc.c_str(), X_OK) != 0) continue;
    finding.detail = absl::StrCat(nvcc, ", ", NvccRelease(nvcc));
    return finding;
  }
  finding.detail = "not found; only building the CUDA engine needs it";
  if (wanted) {
    finding.verdict = Verdict::kWarning;
    finding.advice = "tools/run builds the CUDA engine and gets a compiler where there is none";
  }
  return finding;
}

Finding CheckDriver(const DynamicLibrary& cuda) {
  Finding finding{.name = "nvidia driver", .verdict = Verdict::kOk, .detail = "", .advice = ""};
  const bool kernel_side = std::filesystem::exists("/proc/driver/nvidia/version");
  if (!cuda.found()) {
    finding.detail = "none: the server runs on the CPU";
    if (kernel_side) {
      finding.verdict = Verdict::kWarning;
      finding.detail = "loaded, but its library libcuda.so.1 is not here";
      finding.advice = "in a container, start it with the NVIDIA Container Toolkit (--gpus all)";
    }
    return finding;
  }
  int version = 0;
  if (!cuda.Call("cuDriverGetVersion", &version) || !cuda.Call("cuInit", 0u)) {
    finding.verdict = Verdict::kWarning;
    finding.detail = "its library is here, but it does not start: no GPU, or no access to it";
    finding.advice = "the server runs on the CPU; see nvidia-smi for what is wrong";
    return finding;
  }
  // 1000 * major + 10 * minor.
  finding.detail = absl::StrCat("for CUDA ", version / 1000, ".", version % 1000 / 10);
  if (version / 1000 < kCudaMajor) {
    finding.verdict = Verdict::kWarning;
    finding.advice = absl::StrCat("too old for CUDA ", kCudaMajor,
                                  ", which Quiver is built with; update the driver");
  } else if (!kBuiltWithCuda) {
    finding.verdict = Verdict::kWarning;
    finding.advice = "this build has no CUDA engine; tools/run builds one";
  }
  return finding;
}

}  // namespace

std::vector<Finding> CheckNvidia() {
  const DynamicLibrary cuda("libcuda.so.1");
  const DynamicLibrary nvml(kManagementLibrary);
  nvml.Call("nvmlInit_v2");
  std::vector<Finding> findings = {CheckDriver(cuda)};
  int devices = 0;
  cuda.Call("cuDeviceGetCount", &devices);
  for (int i = 0; i < devices; ++i) findings.push_back(CheckDevice(cuda, nvml, i));
  findings.push_back(CheckCublas(/*wanted=*/devices > 0));
  findings.push_back(CheckNvcc(/*wanted=*/devices > 0 && !kBuiltWithCuda));
  return findings;
}

}  // namespace quiver
