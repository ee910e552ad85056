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
#include "engine/run/cuda/cuda_status.h"
#include "engine/run/cuda/device_memory.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cuda/random_fill.h"

namespace quiver {
namespace {

// Enough threads for the bus, each with two buffers: one is filled while the other is on its way.
constexpr int kMaxThreads = 8;
constexpr int kBuffers = 2;
constexpr int64_t kBufferBytes = int64_t{8} << 20;
constexpr int64_t kConvertBlock = 4096;
constexpr uint64_t kRandomSeed = 20'250'601;

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

// A run of a piece's elements that fits one buffer.
struct Portion {
  const WeightPiece* piece;
  int64_t begin;
  int64_t count;
};

std::vector<Portion> Portions(const WeightLayout& layout) {
  std::vector<Portion> portions;
  for (const WeightPiece& piece : layout.pieces()) {
    const int64_t most = kBufferBytes / static_cast<int64_t>(cpu::StoredSize(piece.target_type));
    for (int64_t begin = 0; begin < piece.count; begin += most) {
      portions.push_back({&piece, begin, std::min(most, piece.count - begin)});
    }
  }
  return portions;
}

// One thread's share: what it takes from `next` on.
absl::Status LoadShare(const std::vector<Portion>& portions, int device, std::byte* block,
                       std::atomic<size_t>* next) {
  CudaCalls calls;
  calls(cudaSetDevice(device), "choosing the device");
  absl::StatusOr<PinnedMemory> buffers = AllocatePinned(kBuffers * kBufferBytes, "loading weights");
  if (!buffers.ok()) return buffers.status();
  cudaStream_t stream = nullptr;
  std::array<cudaEvent_t, kBuffers> sent = {};
  calls(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream");
  for (cudaEvent_t& event : sent) {
    calls(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
  }
  int buffer = 0;
  for (size_t i = (*next)++; i < portions.size() && calls.ok(); i = (*next)++) {
    const auto& [piece, begin, count] = portions[i];
    std::byte* staging = buffers->get() + buffer * kBufferBytes;
    calls(cudaEventSynchronize(sent[buffer]), "loading weights");
    const auto source_size = static_cast<int64_t>(cpu::StoredSize(piece->source_type));
    const auto size = static_cast<int64_t>(cpu::StoredSize(piece->target_type));
    Convert(piece->source.data + begin * source_size, piece->source_type, count, piece->target_type,
            staging);
    calls(cudaMemcpyAsync(block + piece->offset + begin * size, staging,
                          static_cast<size_t>(count * size), cudaMemcpyHostToDevice, stream),
          "loading weights");
    calls(cudaEventRecord(sent[buffer], stream), "loading weights");
    buffer = (buffer + 1) % kBuffers;
  }
  if (stream != nullptr) calls(cudaStreamSynchronize(stream), "loading weights");
  for (const cudaEvent_t event : sent) {
    if (event != nullptr) cudaEventDestroy(event);
  }
  if (stream != nullptr) cudaStreamDestroy(stream);
  return calls.status();
}

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
      const absl::Status status = LoadShare(portions, device, block, &next);
      absl::MutexLock lock(&mutex);
      calls(status);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const WeightPiece& piece : layout.pieces()) weights.DropPages(piece.source);
  return calls.status();
}

absl::Status MakeRandomWeights(const WeightLayout& layout, std::byte* block) {
  CudaCalls calls;
  uint64_t seed = kRandomSeed;
  for (const WeightPiece& piece : layout.pieces()) {
    calls(RandomFill({.mean = piece.random_mean, .range = piece.random_range, .seed = ++seed},
                     piece.target_type, piece.count, block + piece.offset, nullptr),
          "making random weights");
  }
  calls(cudaStreamSynchronize(nullptr), "making random weights");
  return calls.status();
}

}  // namespace quiver
