// What `quiver doctor` looks at. Each check finds out by itself and changes nothing.
#ifndef QUIVER_TOOLS_QUIVER_DOCTOR_CHECKS_H_
#define QUIVER_TOOLS_QUIVER_DOCTOR_CHECKS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace quiver {

enum class Verdict {
  kOk,
  // Quiver runs, but not as well as it could, or not with default settings.
  kWarning,
  // Quiver does not run.
  kFailure,
};

struct Finding {
  // Machine-readable, such as "cpu".
  std::string name;
  Verdict verdict = Verdict::kOk;
  // What there is, for people.
  std::string detail;
  // What to do about it; empty if there is nothing to do.
  std::string advice;
};

// The machine.
Finding CheckCpu();
Finding CheckMemory();
Finding CheckOpenFiles();
// Whether a server may listen on 127.0.0.1:`port`, which is the default for `door` ("gRPC").
Finding CheckPort(const std::string& door, int port);

// The driver and its devices, cuBLAS, and the compiler. Without a driver all is well: the server
// then runs on the CPU. Libraries are only looked for, not linked.
std::vector<Finding> CheckNvidia();

// The model that tools/run serves unless told otherwise.
Finding CheckDefaultModel();
// The files of a Hugging Face directory, and whether it fits into this machine's memory.
std::vector<Finding> CheckModel(const std::string& model_dir);

// The same directory on a GPU of Hopper's kind with `bytes` of memory: what fits as it is stored, and
// quantized at load. Empty if the files are not readable.
std::vector<Finding> CheckDeviceMemory(const std::string& model_dir, int64_t bytes);

// Bytes that this process may still take: of the machine's memory, and of its control groups'.
int64_t AvailableMemoryBytes();

// "1.5 GiB", "87 MiB".
std::string HumanBytes(int64_t bytes);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_DOCTOR_CHECKS_H_
