#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/random_weights.h"
#include "tools/quiver/device_ceilings.h"

namespace quiver {
namespace {

constexpr int kTokens[] = {8192, 16384, 32768};
constexpr int kMaxTokens = 32768;
constexpr int64_t kCube = 8192;
constexpr int64_t kElementBytes = 2;
constexpr int64_t kCopyBytes = int64_t{1} << 30;
constexpr size_t kWorkspaceBytes = size_t{64} << 20;
// Random values that are made on the host; buffers repeat them.
constexpr int64_t kTileElements = int64_t{1} << 23;
constexpr int kAlgorithms = 16;
constexpr int kTrials = 4;
// Time of one figure, about.
constexpr double kMeasureMs = 80.0;

// Turns CUDA's and cuBLASLt's answers into a status, the first error staying.
class Checker {
 public:
  bool Check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return true;
    const auto code = error == cudaErrorMemoryAllocation ? absl::StatusCode::kResourceExhausted
                                                         : absl::StatusCode::kInternal;
    status_.Update(
        absl::Status(code, absl::StrCat("ceilings: ", what, ": ", cudaGetErrorString(error))));
    return false;
  }
  bool Check(cublasStatus_t status, const char* what) {
    if (status == CUBLAS_STATUS_SUCCESS) return true;
    status_.Update(absl::InternalError(
        absl::StrCat("ceilings: ", what, ": cuBLASLt's status ", static_cast<int>(status))));
    return false;
  }
  const absl::Status& status() const { return status_; }

 private:
  absl::Status status_;
};

// Outputs and inputs of a layer's products, those that share an input being one.
std::vector<std::pair<int64_t, int64_t>> LinearShapes(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  const int64_t query = int64_t{config.num_heads} * config.head_dim;
  const int64_t key = int64_t{config.num_kv_heads} * config.head_dim;
  const int64_t up = config.family == Family::kQwen3 ? 2 * inner : inner;
  return {{query + 2 * key, hidden}, {hidden, query}, {up, hidden}, {hidden, inner}};
}

// y [tokens, outputs] = x [tokens, inputs] w^T, w being [outputs, inputs].
struct Product {
  const void* w = nullptr;
  cublasLtMatrixLayout_t w_layout = nullptr;
  cublasLtMatrixLayout_t x_layout = nullptr;
  cublasLtMatrixLayout_t y_layout = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  double flop = 0;
};

class CudaCeilings : public DeviceCeilings {
 public:
  CudaCeilings(const ModelConfig& config, ComputeType type)
      : config_(config), type_(type == ComputeType::kFloat16 ? CUDA_R_16F : CUDA_R_16BF) {}
  ~CudaCeilings() override;

  absl::Status Open(int ordinal);
  absl::StatusOr<CeilingRates> Measure() override;

 private:
  void* Allocate(int64_t bytes);
  void Fill(void* data, int64_t bytes, const std::vector<uint16_t>& tile);
  Product MakeProduct(int64_t tokens, int64_t outputs, int64_t inputs, const void* w);
  void ChooseAlgorithm(Product* product);
  cublasStatus_t Run(const Product& product, const cublasLtMatmulAlgo_t& algorithm);
  void Run(const Product& product) { check_.Check(Run(product, product.algorithm), "product"); }
  // Milliseconds of a call of `work`, over so many calls.
  template <typename Work>
  double TimeMs(int calls, Work work);
  // The same, over as many as fill kMeasureMs.
  template <typename Work>
  double MeasureMs(double expected_ms, Work work) {
    return TimeMs(std::clamp(static_cast<int>(kMeasureMs / expected_ms), 1, 1000), work);
  }

  const ModelConfig config_;
  const cudaDataType_t type_;
  Checker check_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatmulPreference_t preference_ = nullptr;
  std::vector<void*> buffers_;
  void* x_ = nullptr;
  void* y_ = nullptr;
  void* workspace_ = nullptr;
  // A layer's products by tokens.
  std::map<int, std::vector<Product>> layers_;
  Product cube_;
  std::vector<cublasLtMatrixLayout_t> layouts_;
  // What was last measured, which says how often to repeat it.
  CeilingRates last_;
};

CudaCeilings::~CudaCeilings() {
  for (const cublasLtMatrixLayout_t layout : layouts_) cublasLtMatrixLayoutDestroy(layout);
  if (preference_ != nullptr) cublasLtMatmulPreferenceDestroy(preference_);
  if (operation_ != nullptr) cublasLtMatmulDescDestroy(operation_);
  if (handle_ != nullptr) cublasLtDestroy(handle_);
  for (void* buffer : buffers_) cudaFree(buffer);
  if (begin_ != nullptr) cudaEventDestroy(begin_);
  if (end_ != nullptr) cudaEventDestroy(end_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void* CudaCeilings::Allocate(int64_t bytes) {
  void* data = nullptr;
  if (check_.Check(cudaMalloc(&data, static_cast<size_t>(bytes)), "memory")) {
    buffers_.push_back(data);
  }
  return data;
}

void CudaCeilings::Fill(void* data, int64_t bytes, const std::vector<uint16_t>& tile) {
  if (!check_.status().ok()) return;
  char* const to = static_cast<char*>(data);
  int64_t filled = std::min(bytes, static_cast<int64_t>(tile.size()) * kElementBytes);
  check_.Check(cudaMemcpy(to, tile.data(), static_cast<size_t>(filled), cudaMemcpyHostToDevice),
               "copy");
  while (filled < bytes) {
    const int64_t n = std::min(filled, bytes - filled);
    check_.Check(cudaMemcpy(to + filled, to, static_cast<size_t>(n), cudaMemcpyDeviceToDevice),
                 "copy");
    filled += n;
  }
}

Product CudaCeilings::MakeProduct(int64_t tokens, int64_t outputs, int64_t inputs, const void* w) {
  // cuBLASLt's matrices are column-major, so its y is y^T = w x^T.
  const auto layout = [this](int64_t rows, int64_t columns) {
    cublasLtMatrixLayout_t made = nullptr;
    if (check_.Check(cublasLtMatrixLayoutCreate(&made, type_, static_cast<uint64_t>(rows),
                                                static_cast<uint64_t>(columns), rows),
                     "layout")) {
      layouts_.push_back(made);
    }
    return made;
  };
  Product product;
  product.w = w;
  product.w_layout = layout(inputs, outputs);
  product.x_layout = layout(inputs, tokens);
  product.y_layout = layout(outputs, tokens);
  product.flop = 2.0 * static_cast<double>(tokens) * static_cast<double>(outputs) *
                 static_cast<double>(inputs);
  if (check_.status().ok()) ChooseAlgorithm(&product);
  return product;
}

cublasStatus_t CudaCeilings::Run(const Product& product, const cublasLtMatmulAlgo_t& algorithm) {
  const float one = 1, zero = 0;
  return cublasLtMatmul(handle_, operation_, &one, product.w, product.w_layout, x_,
                        product.x_layout, &zero, y_, product.y_layout, y_, product.y_layout,
                        &algorithm, workspace_, kWorkspaceBytes, stream_);
}

void CudaCeilings::ChooseAlgorithm(Product* product) {
  std::vector<cublasLtMatmulHeuristicResult_t> found(kAlgorithms);
  int count = 0;
  if (!check_.Check(
          cublasLtMatmulAlgoGetHeuristic(handle_, operation_, product->w_layout, product->x_layout,
                                         product->y_layout, product->y_layout, preference_,
                                         kAlgorithms, found.data(), &count),
          "algorithms")) {
    return;
  }
  double best_ms = std::numeric_limits<double>::infinity();
  for (int i = 0; i < count; ++i) {
    // One that cannot run is not an error as long as another can.
    if (Run(*product, found[i].algo) != CUBLAS_STATUS_SUCCESS) continue;
    const double ms = TimeMs(kTrials, [&] { Run(*product, found[i].algo); });
    if (ms >= best_ms) continue;
    best_ms = ms;
    product->algorithm = found[i].algo;
  }
  if (best_ms == std::numeric_limits<double>::infinity()) {
    check_.Check(CUBLAS_STATUS_NOT_SUPPORTED, "algorithms");
  }
}

template <typename Work>
double CudaCeilings::TimeMs(int calls, Work work) {
  check_.Check(cudaEventRecord(begin_, stream_), "event");
  for (int i = 0; i < calls; ++i) work();
  check_.Check(cudaEventRecord(end_, stream_), "event");
  check_.Check(cudaEventSynchronize(end_), "event");
  float ms = 0;
  check_.Check(cudaEventElapsedTime(&ms, begin_, end_), "event");
  return ms / calls;
}

absl::Status CudaCeilings::Open(int ordinal) {
  check_.Check(cudaSetDevice(ordinal), "device");
  check_.Check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
  check_.Check(cudaEventCreate(&begin_), "event");
  check_.Check(cudaEventCreate(&end_), "event");
  check_.Check(cublasLtCreate(&handle_), "handle");
  check_.Check(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "operation");
  const cublasOperation_t transposed = CUBLAS_OP_T;
  check_.Check(cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                              sizeof(transposed)),
               "operation");
  check_.Check(cublasLtMatmulPreferenceCreate(&preference_), "preference");
  check_.Check(
      cublasLtMatmulPreferenceSetAttribute(preference_, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                           &kWorkspaceBytes, sizeof(kWorkspaceBytes)),
      "preference");

  const std::vector<std::pair<int64_t, int64_t>> shapes = LinearShapes(config_);
  int64_t max_inputs = 0, max_outputs = 0;
  for (const auto& [outputs, inputs] : shapes) {
    max_inputs = std::max(max_inputs, inputs);
    max_outputs = std::max(max_outputs, outputs);
  }
  const int64_t cube_bytes = kCube * kCube * kElementBytes;
  // Ample for copying from one into the other, too.
  const int64_t x_bytes =
      std::max({kMaxTokens * max_inputs * kElementBytes, cube_bytes, kCopyBytes});
  const int64_t y_bytes =
      std::max({kMaxTokens * max_outputs * kElementBytes, cube_bytes, kCopyBytes});
  x_ = Allocate(x_bytes);
  y_ = Allocate(y_bytes);
  workspace_ = Allocate(kWorkspaceBytes);
  if (!check_.status().ok()) return check_.status();

  // Of deviation 1, which is as good as any other.
  std::vector<uint16_t> tile(kTileElements);
  const DType dtype = type_ == CUDA_R_16F ? DType::kF16 : DType::kBF16;
  const absl::StatusOr<RandomTensors> random = RandomTensors::Create(config_, dtype, 1);
  if (!random.ok()) return random.status();
  random->Fill({"tile", {kTileElements}, TensorRole::kEmbedding}, 0, kTileElements,
               reinterpret_cast<std::byte*>(tile.data()), nullptr);
  Fill(x_, x_bytes, tile);
  std::vector<const void*> weights;
  for (const auto& [outputs, inputs] : shapes) {
    void* const w = Allocate(outputs * inputs * kElementBytes);
    Fill(w, outputs * inputs * kElementBytes, tile);
    weights.push_back(w);
  }
  void* const cube = Allocate(cube_bytes);
  Fill(cube, cube_bytes, tile);
  // The work stream does not wait for the stream of these copies.
  check_.Check(cudaDeviceSynchronize(), "copy");

  for (const int tokens : kTokens) {
    for (size_t i = 0; i < shapes.size() && check_.status().ok(); ++i) {
      layers_[tokens].push_back(MakeProduct(tokens, shapes[i].first, shapes[i].second, weights[i]));
    }
  }
  if (check_.status().ok()) cube_ = MakeProduct(kCube, kCube, kCube, cube);
  return check_.status();
}

absl::StatusOr<CeilingRates> CudaCeilings::Measure() {
  CeilingRates rates;
  for (const auto& [tokens, layer] : layers_) {
    const double expected_ms =
        last_.linear_tokens_per_s.empty()
            ? kMeasureMs
            : 1e3 * tokens / last_.linear_tokens_per_s[tokens] / config_.num_layers;
    const double ms = MeasureMs(expected_ms, [&] {
      for (const Product& product : layer) Run(product);
    });
    rates.linear_tokens_per_s[tokens] = 1e3 * tokens / (ms * config_.num_layers);
  }
  const double cube_ms = MeasureMs(4.0, [&] { Run(cube_); });
  rates.matmul_tflops = cube_.flop / cube_ms * 1e-9;
  const double copy_ms = MeasureMs(2.0, [&] {
    check_.Check(cudaMemcpyAsync(y_, x_, kCopyBytes, cudaMemcpyDeviceToDevice, stream_), "copy");
  });
  rates.copy_tb_per_s = 2.0 * kCopyBytes / copy_ms * 1e-9;
  if (!check_.status().ok()) return check_.status();
  last_ = rates;
  return rates;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceCeilings>> CreateCudaCeilings(int ordinal,
                                                                   const ModelConfig& config,
                                                                   ComputeType type) {
  auto ceilings = std::make_unique<CudaCeilings>(config, type);
  absl::Status status = ceilings->Open(ordinal);
  // The first time round is a warm-up.
  if (status.ok()) status = ceilings->Measure().status();
  if (!status.ok()) return status;
  return ceilings;
}

}  // namespace quiver
