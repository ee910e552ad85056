// The arguments of a device bench: [ROUNDS] [--json FILE] and flags of its own.
#ifndef QUIVER_TESTS_KERNELS_CUDA_BENCH_ARGUMENTS_H_
#define QUIVER_TESTS_KERNELS_CUDA_BENCH_ARGUMENTS_H_

#include <algorithm>
#include <cstdlib>
#include <set>
#include <string>

namespace quiver {

struct BenchArguments {
  int rounds;
  // Empty for none.
  std::string json_path;
  // Such as "--splits".
  std::set<std::string> flags;

  BenchArguments(int argc, char** argv, int default_rounds) : rounds(default_rounds) {
    for (int i = 1; i < argc; ++i) {
      const std::string argument = argv[i];
      if (argument == "--json" && i + 1 < argc) {
        json_path = argv[++i];
      } else if (argument.rfind("--", 0) == 0) {
        flags.insert(argument);
      } else {
        rounds = std::max(1, std::atoi(argv[i]));
      }
    }
  }
};

}  // namespace quiver

#endif  // QUIVER_TESTS_KERNELS_CUDA_BENCH_ARGUMENTS_H_
