#include "engine/run/cuda/cuda_executor.h"

#include <cmath>

#include "engine/run/cuda/cuda_status.h"
#include "engine/run/encoding.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/decoder_pass.h"
#include "kernels/cuda/pool_encode.h"

namespace quiver {

std::vector<PassOp> CudaExecutor::Ops(const DeviceBatch& batch, const PassRegion& region) const {
  const PassWork work = {.tokens = batch.tokens,
                         .sequences = batch.sequences,
                         .chunk_tokens = region.limits().chunk_tokens,
                         .launches = &batch.attention.launches,
                         .pooled_launches = &batch.pooled_attention.launches};
  return ListOps(options_.shape, work, options_.rates);
}

bool CudaExecutor::CanDecode(const DeviceBatch& batch, const PassRegion& region) const {
  return region.limits().decoder_bytes > 0 && batch.tokens <= kMaxDecoderRows;
}

std::vector<PassOp> CudaExecutor::DecodeOps(const DeviceBatch& batch) const {
  const int last = options_.shape.num_layers - 1;
  return {{PassOp::Kind::kDecode, last, 0, batch.tokens},
          {PassOp::Kind::kEncode, last, 0, batch.sequences}};
}

absl::Status CudaExecutor::Enqueue(const PassOp& op, const DeviceBatch& batch,
                                   const PassRegion& region) const {
  using Kind = PassOp::Kind;
  const auto launch = static_cast<size_t>(op.begin);
  CudaCalls calls;
  switch (op.kind) {
    case Kind::kEmbed: {
      const RowBlock block = Chunk(batch, region, op.begin, op.rows);
      calls(model_->Embed(block));
      calls(model_->Project(0, block));
      break;
    }
    case Kind::kAttend:
      calls(Attend(batch.attention.launches[launch], /*pooled=*/false, batch, region));
      break;
    case Kind::kFinish: {
      const RowBlock block = Chunk(batch, region, op.begin, op.rows);
      calls(model_->Finish(op.layer, block));
      // In place of this layer's, which its attention was done with before the first chunk.
      if (op.layer + 1 < options_.shape.num_layers) calls(model_->Project(op.layer + 1, block));
      break;
    }
    case Kind::kPooledQuery:
      calls(model_->ProjectPooled(Pooled(batch, region)));
      break;
    case Kind::kPooledAttend:
      calls(Attend(batch.pooled_attention.launches[launch], /*pooled=*/true, batch, region));
      break;
    case Kind::kPooledFinish:
      calls(model_->Finish(op.layer, Pooled(batch, region)));
      break;
    case Kind::kDecode:
      calls(model_->Decode(Chunk(batch, region, 0, op.rows), Pooled(batch, region),
                           region.device(region.layout().decoder)));
      break;
    case Kind::kEncode:
      calls(Encode(batch, region));
      break;
  }
  return calls.status();
}

std::vector<MatmulCase> CudaExecutor::Matmuls(const PassRegion& region) const {
  DeviceBatch batch;
  batch.sequences = region.limits().sequences;
  return model_->Matmuls(Chunk(batch, region, 0, region.limits().chunk_tokens),
                         Pooled(batch, region));
}

MatmulScratch CudaExecutor::Scratch(const PassRegion& region) const {
  return {region.device(region.layout().workspace),
          kWorkspaceBytes,
          region.device(region.layout().few_rows),
          region.stream(),
          region.device(region.layout().expanded),
          region.limits().expanded_bytes,
          region.expanded_weights()};
}

RowBlock CudaExecutor::Chunk(const DeviceBatch& batch, const PassRegion& region, int64_t begin,
                             int64_t rows) const {
  const ActivationLayout& layout = region.layout();
  RowBlock block;
  block.rows = rows;
  block.ids = region.device<int32_t>(layout.input + batch.input.ids) + begin;
  block.positions = region.device<int32_t>(layout.input + batch.input.positions) + begin;
  block.residual = region.device<float>(layout.residual) + begin * options_.shape.hidden;
  block.half = region.device(layout.half);
  block.inner = region.device(layout.inner);
  block.row_scales = region.device<float>(layout.row_scales);
  block.projected_stride = options_.shape.projection_width();
  block.projected = region.device(layout.projected) + 2 * begin * block.projected_stride;
  block.scratch = Scratch(region);
  return block;
}

RowBlock CudaExecutor::Pooled(const DeviceBatch& batch, const PassRegion& region) const {
  const ActivationLayout& layout = region.layout();
  RowBlock block = Chunk(batch, region, 0, batch.sequences);
  block.positions = region.device<int32_t>(layout.input + batch.input.pooled_positions);
  block.pooled_rows = region.device<int32_t>(layout.input + batch.input.pooled_rows);
  block.all_residual = block.residual;
  block.all_projected = block.projected;
  block.residual = region.device<float>(layout.pooled_residual);
  block.projected = region.device(layout.pooled_query);
  block.projected_stride = options_.shape.query_width();
  return block;
}

absl::Status CudaExecutor::Attend(const AttentionLaunch& launch, bool pooled,
                                  const DeviceBatch& batch, const PassRegion& region) const {
  const ActivationLayout& layout = region.layout();
  const ForwardShape& shape = options_.shape;
  const std::byte* projected = region.device(layout.projected);
  AttentionTensors tensors;
  tensors.out = region.device(pooled ? layout.pooled_query : layout.projected);
  tensors.q = tensors.out;
  tensors.k = projected + 2 * shape.query_width();
  tensors.v = projected + 2 * (shape.query_width() + shape.key_width());
  tensors.k_stride = tensors.v_stride = shape.projection_width();
  tensors.q_stride = tensors.out_stride = pooled ? shape.query_width() : shape.projection_width();
  tensors.q_rows = static_cast<int32_t>(pooled ? batch.sequences : batch.tokens);
  tensors.kv_rows = static_cast<int32_t>(batch.tokens);
  tensors.tiles = region.device<AttentionTile>(
      layout.input + (pooled ? batch.input.pooled_tiles : batch.input.tiles));
  tensors.counters = region.device<int32_t>(layout.counters);
  const float scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  return CudaStatus(Attention(options_.attention.shape, launch, tensors, scale, region.stream()),
                    "attention");
}

absl::Status CudaExecutor::Encode(const DeviceBatch& batch, const PassRegion& region) const {
  const ActivationLayout& layout = region.layout();
  const bool pruned = options_.shape.prune_last;
  PoolTensors tensors;
  tensors.hidden = region.device<float>(pruned ? layout.pooled_residual : layout.residual);
  tensors.hidden_stride = options_.shape.hidden;
  tensors.dim = options_.shape.hidden;
  tensors.norm_weight = model_->final_norm();
  tensors.norm_eps = options_.norm_eps;
  tensors.items = region.device<PoolItem>(layout.input + batch.input.items);
  tensors.num_items = static_cast<int>(batch.sequences);
  tensors.out = region.device(layout.vectors);
  tensors.results = region.device<PoolResult>(layout.results);
  // Of a pruned last layer there is one row for each sequence.
  const cpu::PoolKind kind = pruned ? cpu::PoolKind::kCls : PoolKindOf(options_.pooling);
  return CudaStatus(PoolEncode(kind, tensors, region.stream()), "pooling");
}

}  // namespace quiver
