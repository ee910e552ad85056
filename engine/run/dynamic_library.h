// A shared library that is opened if it is there, by the names and signatures of its public C
// interface, so that this program does not need it.
#ifndef QUIVER_ENGINE_RUN_DYNAMIC_LIBRARY_H_
#define QUIVER_ENGINE_RUN_DYNAMIC_LIBRARY_H_

#include <dlfcn.h>

#include <string>

namespace quiver {

// NVIDIA's management library (NVML), and what its functions for a card's memory fill in: that of
// nvml.h of the CUDA toolkit, which is stable by the functions' versioned names.
inline constexpr char kManagementLibrary[] = "libnvidia-ml.so.1";
struct NvmlMemory {
  unsigned long long total = 0;
  unsigned long long free = 0;
  unsigned long long used = 0;
};

// Stays open for good: CUDA's libraries do not bear being closed.
class DynamicLibrary {
 public:
  explicit DynamicLibrary(const std::string& name)
      : handle_(dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) {}

  bool found() const { return handle_ != nullptr; }

  // Calls a function that returns 0 for success; false as well if there is none of that name.
  template <typename... Args>
  bool Call(const char* name, Args... args) const {
    if (handle_ == nullptr) return false;
    using Function = int (*)(Args...);
    const auto function = reinterpret_cast<Function>(dlsym(handle_, name));
    return function != nullptr && function(args...) == 0;
  }

  void* Find(const char* name) const { return found() ? dlsym(handle_, name) : nullptr; }

 private:
  void* handle_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_DYNAMIC_LIBRARY_H_
