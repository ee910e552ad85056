// Tensors of a checkpoint whose elements are floats of 16 or 32 bits.
#ifndef QUIVER_ENGINE_MODEL_STORED_FLOATS_H_
#define QUIVER_ENGINE_MODEL_STORED_FLOATS_H_

#include <cstdint>

#include "engine/model/weights.h"
#include "kernels/cpu/stored_type.h"

namespace quiver {

inline bool IsStoredFloat(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

// `dtype` as the kernels name it, of those that IsStoredFloat() holds for.
inline cpu::StoredType StoredTypeOf(DType dtype) {
  return dtype == DType::kF16    ? cpu::StoredType::kF16
         : dtype == DType::kBF16 ? cpu::StoredType::kBF16
                                 : cpu::StoredType::kF32;
}

// Elements [begin, begin + count), exactly.
inline void ReadFloats(const TensorView& tensor, int64_t begin, int64_t count, float* out) {
  const cpu::StoredType type = StoredTypeOf(tensor.dtype);
  const auto size = static_cast<int64_t>(cpu::StoredSize(type));
  cpu::WidenToFloat(type, tensor.data + begin * size, count, out);
}

}  // namespace quiver

#endif  // QUIVER_ENGINE_MODEL_STORED_FLOATS_H_
