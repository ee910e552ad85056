// A hash that is the same on every machine, for random values that are a function of a name and an
// index.
#ifndef QUIVER_ENGINE_MODEL_RANDOM_BITS_H_
#define QUIVER_ENGINE_MODEL_RANDOM_BITS_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace quiver {

// FNV-1a, of 64 bits.
inline uint64_t HashName(absl::string_view name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash;
}

// The finalizer of SplitMix64: every bit of the result depends on every bit of `x`.
inline uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace quiver

#endif  // QUIVER_ENGINE_MODEL_RANDOM_BITS_H_
