#include "kernels/cpu/activation.h"

#include <cmath>

namespace quiver::cpu {
namespace {

float ActivateOne(Activation activation, float x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:
      return 0.5f * x * (1.0f + std::erf(x * 0.70710678f));
    case Activation::kGeluTanh:
      return 0.5f * x * (1.0f + std::tanh(0.7978845608f * (x + 0.044715f * x * x * x)));
    case Activation::kSilu:
      return x / (1.0f + std::exp(-x));
    case Activation::kRelu:
      return x < 0.0f ? 0.0f : x;
  }
  return x;
}

}  // namespace

void Activate(Activation activation, float* x, int64_t row_stride, int64_t rows, int64_t cols,
              ThreadPool* pool) {
  ParallelFor(pool, rows, [&](int64_t r) {
    float* row = x + r * row_stride;
    for (int64_t i = 0; i < cols; ++i) row[i] = ActivateOne(activation, row[i]);
  });
}

}  // namespace quiver::cpu
