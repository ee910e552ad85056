#include "engine/run/cuda/weight_loader.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/run/cuda/activation_layout.h"
#include "engine/run/cuda/cuda_status.h"
#include "engine/run/cuda/device_memory.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/int4_matrix.h"
#include "kernels/cuda/random_fill.h"

namespace quiver {
namespace {

// Enough threads for the bus, each with two buffers: one is filled while the other is on its way.
constexpr int kMaxThreads = 8;
constexpr int kBuffers = 2;
constexpr int64_t kBufferBytes = int64_t{8} << 20;
constexpr int64_t kConvertBlock = 4096;
constexpr uint64_t kRandomSeed = 20'250'601;

HalfType HalfTypeOf(cpu::StoredType type) {
  return type == cpu::StoredType::kF16 ? HalfType::kF16 : HalfType::kBf16;
}

// Writes `count` elements of `type` from floats.
void Narrow(const float* values, int64_t count, cpu::StoredType type, std::byte* out) {
  if (type == cpu::StoredType::kF32) {
    std::memcpy(out, values, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t bits = type == cpu::StoredType::kBF16 ? cpu::FloatToBfloat16(values[i])
                                                         : cpu::FloatToHalf(values[i]);
    std::memcpy(out + 2 * i, &bits, sizeof(bits));
  }
}

void Convert(const std::byte* source, cpu::StoredType source_type, int64_t count,
             cpu::StoredType type, std::byte* out) {
  const auto source_size = static_cast<int64_t>(cpu::StoredSize(source_type));
  const auto size = static_cast<int64_t>(cpu::StoredSize(type));
  if (source_type == type) {
    std::memcpy(out, source, static_cast<size_t>(count * size));
    return;
  }
  std::array<float, kConvertBlock> values;
  for (int64_t done = 0; done < count; done += kConvertBlock) {
    const int64_t some = std::min(kConvertBlock, count - done);
    cpu::WidenToFloat(source_type, source + done * source_size, some, values.data());
    Narrow(values.data(), some, type, out + done * size);
  }
}

// A run of a piece that fits one buffer: of its elements, or of its rows where it has a linear.
struct Portion {
  const WeightPiece* piece;
  int64_t begin;
  int64_t count;
};

// Rows of a linear that are read at once: a multiple of what is read quickest, if so many fit.
int64_t RowsAtOnce(const WeightPiece& piece) {
  constexpr int64_t kQuickRows = 64;
  // What they take in a buffer, of 16 bits or as Int4Source has them, and more.
  const int64_t most = kBufferBytes / (4 * piece.k);
  if (most >= kQuickRows) return most / kQuickRows * kQuickRows;
  // Int4 is packed by panels of rows, and says itself if these do not fit.
  return std::max<int64_t>(piece.form.row_multiple(), most);
}

std::vector<Portion> Portions(const WeightLayout& layout) {
  std::vector<Portion> portions;
  for (const WeightPiece& piece : layout.pieces()) {
    const bool by_rows = piece.linear != nullptr;
    const int64_t count = by_rows ? piece.count / piece.k : piece.count;
    const int64_t most =
        by_rows ? RowsAtOnce(piece)
                : kBufferBytes / static_cast<int64_t>(cpu::StoredSize(piece.target_type));
    for (int64_t begin = 0; begin < count; begin += most) {
      portions.push_back({&piece, begin, std::min(most, count - begin)});
    }
  }
  return portions;
}

// One thread's share: what it takes from `next` on.
class Share {
 public:
  Share(int device, std::byte* block) : device_(device), block_(block) {}
  ~Share() {
    for (const cudaEvent_t event : sent_) {
      if (event != nullptr) cudaEventDestroy(event);
    }
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  Share(const Share&) = delete;
  Share& operator=(const Share&) = delete;

  absl::Status Load(const std::vector<Portion>& portions, std::atomic<size_t>* next) {
    calls_(cudaSetDevice(device_), "choosing the device");
    absl::StatusOr<PinnedMemory> buffers = AllocatePinned(kBuffers * kBufferBytes, kWhat);
    if (!buffers.ok()) return buffers.status();
    buffers_ = *std::move(buffers);
    calls_(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
    for (cudaEvent_t& event : sent_) {
      calls_(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
    }
    for (size_t i = (*next)++; i < portions.size() && calls_.ok(); i = (*next)++) {
      calls_(cudaEventSynchronize(sent_[buffer_]), kWhat);
      const Portion& portion = portions[i];
      const LinearWeight* linear = portion.piece->linear.get();
      if (linear != nullptr) calls_(linear->CheckCodes(portion.begin, portion.count));
      if (linear == nullptr) {
        SendElements(portion);
      } else if (portion.piece->form.kind == WeightKind::kInt4) {
        SendInt4(portion);
      } else if (portion.piece->form.kind == WeightKind::kFp8) {
        SendFp8(portion);
      } else {
        SendDequantized(portion);
      }
      calls_(cudaEventRecord(sent_[buffer_], stream_), kWhat);
      buffer_ = (buffer_ + 1) % kBuffers;
    }
    if (stream_ != nullptr) calls_(cudaStreamSynchronize(stream_), kWhat);
    return calls_.status();
  }

 private:
  static constexpr char kWhat[] = "loading weights";

  std::byte* staging() const { return buffers_.get() + buffer_ * kBufferBytes; }
  void Send(std::byte* to, int64_t bytes, int64_t from = 0) {
    calls_(cudaMemcpyAsync(to, staging() + from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice,
                           stream_),
           kWhat);
  }

  void SendElements(const Portion& portion) {
    const WeightPiece& piece = *portion.piece;
    const auto source_size = static_cast<int64_t>(cpu::StoredSize(piece.source_type));
    const auto size = static_cast<int64_t>(cpu::StoredSize(piece.target_type));
    Convert(piece.source.data + portion.begin * source_size, piece.source_type, portion.count,
            piece.target_type, staging());
    Send(block_ + piece.offset + portion.begin * size, portion.count * size);
  }

  void SendDequantized(const Portion& portion) {
    const WeightPiece& piece = *portion.piece;
    const int64_t count = portion.count * piece.k;
    const auto size = static_cast<int64_t>(cpu::StoredSize(piece.target_type));
    floats_.resize(static_cast<size_t>(count));
    piece.linear->Dequantize(portion.begin, portion.count, floats_.data());
    Narrow(floats_.data(), count, piece.target_type, staging());
    Send(block_ + piece.offset + portion.begin * piece.k * size, count * size);
  }

  void SendFp8(const Portion& portion) {
    const WeightPiece& piece = *portion.piece;
    const int64_t count = portion.count * piece.k;
    const int64_t scales_at = AlignUp(count, kArenaAlignment);
    piece.linear->ReadFp8(portion.begin, portion.count, reinterpret_cast<uint8_t*>(staging()),
                          reinterpret_cast<float*>(staging() + scales_at));
    Send(block_ + piece.offset + portion.begin * piece.k, count);
    Send(block_ + piece.scales_offset + portion.begin * 4, portion.count * 4, scales_at);
  }

  // Codes, zero points and scales are packed on the device.
  void SendInt4(const Portion& portion) {
    const WeightPiece& piece = *portion.piece;
    const int64_t groups = piece.linear->num_groups();
    const int64_t count = portion.count * piece.k;
    const int64_t zeros_at = AlignUp(count / 2, kArenaAlignment);
    const int64_t scales_at = zeros_at + AlignUp(portion.count * groups, kArenaAlignment);
    const int64_t bytes = scales_at + portion.count * groups * 4;
    if (bytes > kBufferBytes) {
      return calls_(absl::InternalError("rows of a weight that are too long to load"));
    }
    if (device_staging_.get() == nullptr) {
      absl::StatusOr<DeviceMemory> memory = AllocateDevice(kBufferBytes, kWhat);
      if (!memory.ok()) return calls_(memory.status());
      device_staging_ = *std::move(memory);
    }
    codes_.resize(static_cast<size_t>(count));
    auto* values = reinterpret_cast<uint8_t*>(staging());
    auto* zeros = reinterpret_cast<uint8_t*>(staging() + zeros_at);
    auto* scales = reinterpret_cast<float*>(staging() + scales_at);
    piece.linear->ReadInt4(portion.begin, portion.count, codes_.data(), zeros, scales);
    for (int64_t i = 0; i < count / 2; ++i) {
      values[i] = static_cast<uint8_t>(codes_[static_cast<size_t>(2 * i)] |
                                       codes_[static_cast<size_t>(2 * i + 1)] << 4);
    }
    std::byte* staged = device_staging_.get();
    Send(staged, bytes);
    const Int4Source source = {.values = reinterpret_cast<const uint8_t*>(staged),
                               .zeros = reinterpret_cast<const uint8_t*>(staged + zeros_at),
                               .scales = reinterpret_cast<const float*>(staged + scales_at),
                               .groups = groups};
    const Int4Matrix matrix = {
        .data = block_ + piece.offset + piece.form.Bytes(portion.begin, piece.k),
        .n = portion.count,
        .k = piece.k,
        .group = piece.form.group,
        .type = HalfTypeOf(piece.target_type)};
    calls_(PackInt4(source, matrix, stream_), kWhat);
    if (!piece.form.fp8_inputs) return;
    auto* row_scales = reinterpret_cast<float*>(block_ + piece.scales_offset) + portion.begin;
    calls_(Int4RowScales(matrix, row_scales, stream_), kWhat);
  }

  const int device_;
  std::byte* const block_;
  CudaCalls calls_;
  PinnedMemory buffers_;
  DeviceMemory device_staging_;
  cudaStream_t stream_ = nullptr;
  std::array<cudaEvent_t, kBuffers> sent_ = {};
  int buffer_ = 0;  // the one that is filled next
  std::vector<float> floats_;
  std::vector<uint8_t> codes_;
};

}  // namespace

absl::Status LoadWeights(const WeightLayout& layout, const Weights& weights, std::byte* block) {
  const std::vector<Portion> portions = Portions(layout);
  int device = 0;
  CudaCalls calls;
  calls(cudaGetDevice(&device), "asking for the device");
  absl::Mutex mutex;
  std::atomic<size_t> next{0};
  std::vector<std::thread> threads;
  const int num_threads =
      std::min({kMaxThreads, cpu::AvailableCores(), static_cast<int>(portions.size())});
  for (int i = 0; i < num_threads; ++i) {
    threads.emplace_back([&] {
      const absl::Status status = Share(device, block).Load(portions, &next);
      absl::MutexLock lock(&mutex);
      calls(status);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const WeightPiece& piece : layout.pieces()) {
    if (piece.linear == nullptr) {
      weights.DropPages(piece.source);
    } else {
      for (const TensorView& tensor : piece.linear->tensors()) weights.DropPages(tensor);
    }
  }
  return calls.status();
}

absl::Status MakeRandomWeights(const WeightLayout& layout, std::byte* block) {
  CudaCalls calls;
  uint64_t seed = kRandomSeed;
  for (const WeightPiece& piece : layout.pieces()) {
    ++seed;
    if (piece.form.kind == WeightKind::kInt4) {
      const Int4Matrix matrix = {.data = block + piece.offset,
                                 .n = piece.count / piece.k,
                                 .k = piece.k,
                                 .group = piece.form.group,
                                 .type = HalfTypeOf(piece.target_type)};
      calls(RandomInt4(piece.random_range, seed, matrix, nullptr), "making random weights");
      if (piece.form.fp8_inputs) {
        auto* row_scales = reinterpret_cast<float*>(block + piece.scales_offset);
        calls(Int4RowScales(matrix, row_scales, nullptr), "making random weights");
      }
      continue;
    }
    if (piece.form.kind == WeightKind::kFp8) {
      calls(
          RandomFp8(piece.random_range, seed, piece.count / piece.k, piece.k, block + piece.offset,
                    reinterpret_cast<float*>(block + piece.scales_offset), nullptr),
          "making random weights");
      continue;
    }
    calls(RandomFill({.mean = piece.random_mean, .range = piece.random_range, .seed = seed},
                     piece.target_type, piece.count, block + piece.offset, nullptr),
          "making random weights");
  }
  calls(cudaStreamSynchronize(nullptr), "making random weights");
  return calls.status();
}

}  // namespace quiver
