#include "engine/run/cuda/weight_layout.h"

#include <memory>

#include "engine/run/cuda/activation_layout.h"
#include "engine/run/cuda/cuda_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/tiny_checkpoint.h"

namespace quiver {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class WeightLayoutTest : public testing::Test {
 protected:
  void Open(const TinyModel& model) {
    dir_ = MakeTinyModelDir(model);
    Reopen();
  }
  void Reopen() {
    absl::StatusOr<ModelConfig> config = LoadModelConfig(dir_);
    ASSERT_TRUE(config.ok()) << config.status();
    config_ = *std::move(config);
    absl::StatusOr<std::unique_ptr<Weights>> weights = Weights::Open(dir_);
    ASSERT_TRUE(weights.ok()) << weights.status();
    weights_ = *std::move(weights);
  }
  // The whole model's places, of the checkpoint or of random weights.
  WeightLayout LayOut(bool random, ComputeType type = ComputeType::kBfloat16) {
    const bool qwen3 = config_.family == Family::kQwen3;
    WeightLayout layout(random ? nullptr : weights_.get(), qwen3 ? "model." : "bert.", type);
    const absl::StatusOr<ForwardShape> shape = ForwardShapeOf(config_);
    EXPECT_TRUE(shape.ok()) << shape.status();
    (qwen3 ? CreateQwen3Cuda : CreateBertCuda)(
        config_, {.shape = *shape, .type = type, .max_positions = 100}, &layout, nullptr);
    return layout;
  }

  std::string dir_;
  ModelConfig config_;
  std::unique_ptr<Weights> weights_;
};

TinyModel Qwen3() {
  TinyModel model;
  model.head_dim = 64;
  model.dtype = DType::kBF16;
  return model;
}

TEST_F(WeightLayoutTest, EveryTensorHasAPlaceOfItsOwn) {
  for (const TinyModel& model : {Qwen3(), [] {
                                   TinyModel bert = TinyBert();
                                   bert.num_heads = 2;
                                   return bert;
                                 }()}) {
    Open(model);
    for (const bool random : {false, true}) {
      const WeightLayout layout = LayOut(random);
      ASSERT_TRUE(layout.status().ok()) << layout.status();
      int64_t end = 0;
      int64_t parameters = 0;
      for (const WeightPiece& piece : layout.pieces()) {
        EXPECT_GE(piece.offset, end);
        EXPECT_EQ(piece.offset % 16, 0);
        EXPECT_EQ(piece.source.data == nullptr, random);
        end = piece.offset + piece.count * static_cast<int64_t>(cpu::StoredSize(piece.target_type));
        parameters += piece.count;
      }
      EXPECT_LE(end, layout.bytes());
      EXPECT_EQ(parameters, weights_->num_parameters());
    }
  }
}

TEST_F(WeightLayoutTest, ProjectionsStandOneUnderAnother) {
  Open(Qwen3());
  const WeightLayout layout = LayOut(/*random=*/false);
  const auto offset_of = [&](const std::string& name) {
    const std::byte* data = weights_->tensors().at(name).data;
    for (const WeightPiece& piece : layout.pieces()) {
      if (piece.source.data == data) return piece.offset;
    }
    return int64_t{-1};
  };
  const std::string base = "model.layers.1.";
  const int64_t query = offset_of(base + "self_attn.q_proj.weight");
  const int64_t row_bytes = 2 * config_.hidden_size;
  const int64_t query_rows = config_.num_heads * config_.head_dim;
  const int64_t key_rows = config_.num_kv_heads * config_.head_dim;
  EXPECT_EQ(query % kArenaAlignment, 0);
  EXPECT_EQ(offset_of(base + "self_attn.k_proj.weight"), query + query_rows * row_bytes);
  EXPECT_EQ(offset_of(base + "self_attn.v_proj.weight"),
            query + (query_rows + key_rows) * row_bytes);
  EXPECT_EQ(offset_of(base + "mlp.up_proj.weight"),
            offset_of(base + "mlp.gate_proj.weight") + config_.intermediate_size * row_bytes);
}

TEST_F(WeightLayoutTest, MatricesTakeTheComputeTypeAndTablesKeepTheirs) {
  TinyModel model = Qwen3();
  model.dtype = DType::kF32;
  Open(model);
  const WeightLayout layout = LayOut(/*random=*/false, ComputeType::kFloat16);
  int halves = 0;
  int64_t floats = 0;
  for (const WeightPiece& piece : layout.pieces()) {
    EXPECT_EQ(piece.source_type, cpu::StoredType::kF32);
    EXPECT_NE(piece.target_type, cpu::StoredType::kBF16);
    halves += piece.target_type == cpu::StoredType::kF16 ? 1 : 0;
    if (piece.target_type == cpu::StoredType::kF32) floats = std::max(floats, piece.count);
  }
  EXPECT_EQ(halves, 7 * config_.num_layers);
  EXPECT_EQ(floats, int64_t{config_.vocab_size} * config_.hidden_size);
}

TEST_F(WeightLayoutTest, Int4MatricesTakeWholePanelsAndTheRestSixteenBits) {
  TinyModel model = Qwen3();
  model.hidden_size = 128;
  Open(model);
  const absl::StatusOr<ForwardShape> shape = ForwardShapeOf(config_);
  ASSERT_TRUE(shape.ok()) << shape.status();
  const WeightForm int4 = {WeightKind::kInt4, 128};
  WeightLayout layout(nullptr, "", ComputeType::kBfloat16, nullptr, false, int4);
  const MatrixPlace whole = layout.Matrix({{"a", 128}, {"b", 64}}, 256);
  EXPECT_EQ(whole.form, int4);
  EXPECT_EQ(layout.pieces()[1].offset, whole.offset + Int4Bytes(128, 256, 128));
  EXPECT_EQ(layout.expanded_bytes(), 192 * 256 * 2);
  const MatrixPlace broken = layout.Matrix({{"a", 72}, {"b", 56}}, 256);
  EXPECT_EQ(broken.form, WeightForm());
  EXPECT_EQ(broken.offset - whole.offset, Int4Bytes(192, 256, 128));
  EXPECT_EQ(layout.bytes() - broken.offset, 128 * 256 * 2);
  EXPECT_EQ(layout.expanded_bytes(), 192 * 256 * 2);
}

TEST_F(WeightLayoutTest, AMissingTensorIsNamed) {
  TinyModel model = Qwen3();
  Open(model);
  model.num_layers = 3;
  WriteFile(dir_ + "/config.json", ReadFile(MakeTinyModelDir(model) + "/config.json"));
  Reopen();
  const absl::Status status = LayOut(/*random=*/false).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.layers.2."));
}

TEST_F(WeightLayoutTest, WhatTheKernelsDoNotRunIsNamed) {
  TinyModel model = Qwen3();
  model.head_dim = 32;
  Open(model);
  const absl::Status status = ForwardShapeOf(config_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("head dimension"), HasSubstr("32")));
  config_.head_dim = 64;
  EXPECT_TRUE(ForwardShapeOf(config_).ok());
}

}  // namespace
}  // namespace quiver
