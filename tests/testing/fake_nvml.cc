// Stands in for NVIDIA's management library where it comes first in LD_LIBRARY_PATH: one card,
// whose figures are read at each call from the file that FAKE_NVML_STATE names, as
//   TOTAL_BYTES USED_BYTES UTILIZATION_PERCENT MILLIWATTS CELSIUS
// A file that is not there is a driver that does not answer.
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int kNotFound = 6;  // NVML_ERROR_NOT_FOUND

struct State {
  unsigned long long total = 0;
  unsigned long long used = 0;
  unsigned percent = 0;
  unsigned milliwatts = 0;
  unsigned celsius = 0;
};

bool Read(State* state) {
  const char* path = std::getenv("FAKE_NVML_STATE");
  std::FILE* file = path == nullptr ? nullptr : std::fopen(path, "r");
  if (file == nullptr) return false;
  const int fields = std::fscanf(file, "%llu %llu %u %u %u", &state->total, &state->used,
                                 &state->percent, &state->milliwatts, &state->celsius);
  std::fclose(file);
  return fields == 5;
}

int Copy(const char* text, char* out, unsigned length) {
  std::snprintf(out, length, "%s", text);
  return 0;
}

}  // namespace

extern "C" {

struct FakeMemory {
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;
};
struct FakeUtilization {
  unsigned gpu;
  unsigned memory;
};

int nvmlInit_v2() { return 0; }
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 1;
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned, void** device) {
  static int card;
  *device = &card;
  return 0;
}
int nvmlDeviceGetUUID(void*, char* out, unsigned length) {
  return Copy("GPU-00000000-0000-0000-0000-00000000fa4e", out, length);
}
int nvmlDeviceGetName(void*, char* out, unsigned length) { return Copy("Fake card", out, length); }
int nvmlDeviceGetMemoryInfo(void*, FakeMemory* memory) {
  State state;
  if (!Read(&state)) return kNotFound;
  *memory = {state.total, state.total - state.used, state.used};
  return 0;
}
int nvmlDeviceGetUtilizationRates(void*, FakeUtilization* utilization) {
  State state;
  if (!Read(&state)) return kNotFound;
  *utilization = {state.percent, 0};
  return 0;
}
int nvmlDeviceGetPowerUsage(void*, unsigned* milliwatts) {
  State state;
  if (!Read(&state)) return kNotFound;
  *milliwatts = state.milliwatts;
  return 0;
}
int nvmlDeviceGetTemperature(void*, int, unsigned* celsius) {
  State state;
  if (!Read(&state)) return kNotFound;
  *celsius = state.celsius;
  return 0;
}

}  // extern "C"
