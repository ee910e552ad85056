#include "engine/run/cpu_pass.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "engine/run/encoding.h"
#include "kernels/cpu/pool_encode.h"

namespace quiver {
CpuPassBuffers::CpuPassBuffers(const CpuPassContext& context, int64_t max_tokens)
    : hidden(max_tokens * context.config.hidden_size),
      projected(max_tokens * context.projection_width()),
      pooled_hidden(context.prune_last ? max_tokens * context.config.hidden_size : 0),
      pooled_query(context.prune_last ? max_tokens * context.query_width() : 0) {}

CpuPass::CpuPass(const CpuPassContext& context, const AllBuffers* buffers, PackedBatch batch)
    : context_(context), all_buffers_(buffers), batch_(std::move(batch)) {
  positions_.reserve(batch_.token_ids.size());
  for (int s = 0; s < batch_.num_sequences(); ++s) {
    const int32_t length = batch_.cu_seqlens[s + 1] - batch_.cu_seqlens[s];
    const int32_t first = batch_.prefix(s).reused();
    for (int32_t i = 0; i < length; ++i) positions_.push_back(first + i);
    pooled_positions_.push_back(context_.config.pooling == Pooling::kCls ? 0 : first + length - 1);
  }
  Enter(Stage::kEmbed);
}

CpuPass::~CpuPass() {
  if (buffers_ != nullptr) buffers_->in_use = false;
}

bool CpuPass::Claim() {
  for (const std::unique_ptr<CpuPassBuffers>& buffers : *all_buffers_) {
    if (buffers->in_use.exchange(true)) continue;
    buffers_ = buffers.get();
    return true;
  }
  return false;
}

int64_t CpuPass::PooledToken(int sequence) const {
  return batch_.cu_seqlens[sequence] + pooled_positions_[sequence] -
         batch_.prefix(sequence).reused();
}

absl::StatusOr<bool> CpuPass::Run(int64_t max_us) {
  const auto start = std::chrono::steady_clock::now();
  while (stage_ != Stage::kDone) {
    Step();
    // Not the other way round: a large max_us in nanoseconds would overflow.
    const auto elapsed = std::chrono::steady_clock::now() - start;
    if (std::chrono::duration_cast<std::chrono::microseconds>(elapsed).count() >= max_us) break;
  }
  return stage_ == Stage::kDone;
}

void CpuPass::Enter(Stage stage) {
  stage_ = stage;
  row_ = 0;
  num_rows_ = RunsAllTokens() ? batch_.num_tokens() : batch_.num_sequences();
  if (stage != Stage::kAttend) return;

  next_span_ = 0;
  spans_ = Spans();
  StorePrefixes();
}

std::vector<cpu::AttentionSpan> CpuPass::Spans() const {
  std::vector<cpu::AttentionSpan> spans = cpu::WholeSequences(batch_.cu_seqlens);
  for (int s = 0; s < batch_.num_sequences(); ++s) {
    const PrefixUse& prefix = batch_.prefix(s);
    cpu::AttentionSpan& span = spans[s];
    span.q_position = span.prefix_count = prefix.reused();
    span.prefix_row = prefix.row;
    if (pruned()) {
      span.q_row = s;
      span.q_count = 1;
      span.q_position = pooled_positions_[s];
    }
  }
  return spans;
}

void CpuPass::StorePrefixes() {
  const int64_t width = 2 * context_.key_width();
  const int64_t stride = context_.projection_width();
  for (int s = 0; s < batch_.num_sequences(); ++s) {
    const PrefixUse& prefix = batch_.prefix(s);
    if (!prefix.store) continue;
    const float* from =
        buffers_->projected.data() + batch_.cu_seqlens[s] * stride + context_.query_width();
    for (int32_t i = 0; i < prefix.length; ++i) {
      std::memcpy(context_.prefix(layer_, prefix.row + i), from + i * stride,
                  static_cast<size_t>(width) * sizeof(float));
    }
  }
}

void CpuPass::EnterLayer(int layer) {
  if (layer == context_.config.num_layers) {
    Enter(Stage::kFinishRows);
    return;
  }
  layer_ = layer;
  Enter(Stage::kProject);
}

void CpuPass::Step() {
  if (stage_ == Stage::kAttend) {
    if (!AttendSome()) Enter(Stage::kFinishLayer);
    return;
  }
  if (stage_ == Stage::kEncode) {
    EncodeAll();
    stage_ = Stage::kDone;
    std::exchange(buffers_, nullptr)->in_use = false;
    return;
  }
  const int64_t hidden_size = context_.config.hidden_size;
  const int64_t begin = row_;
  const int64_t rows = std::min(context_.chunk_rows, num_rows_ - begin);
  float* hidden =
      (RunsAllTokens() ? buffers_->hidden : buffers_->pooled_hidden).data() + begin * hidden_size;
  row_ += rows;
  const bool last = row_ == num_rows_;

  switch (stage_) {
    case Stage::kEmbed:
      context_.model->Embed(batch_.token_ids.data() + begin, positions_.data() + begin, rows,
                            hidden);
      if (last) EnterLayer(0);
      break;
    case Stage::kProject: {
      const int64_t stride = context_.projection_width();
      context_.model->Project(
          layer_, pruned() ? Projection::kKeyValue : Projection::kAll, hidden,
          positions_.data() + begin, rows,
          buffers_->projected.data() + begin * stride + (pruned() ? context_.query_width() : 0),
          stride);
      if (last) Enter(pruned() ? Stage::kProjectPooled : Stage::kAttend);
      break;
    }
    case Stage::kProjectPooled:
      ProjectPooledRows(begin, rows);
      if (last) Enter(Stage::kAttend);
      break;
    case Stage::kFinishLayer: {
      const int64_t stride = pruned() ? context_.query_width() : context_.projection_width();
      const float* attended =
          (pruned() ? buffers_->pooled_query : buffers_->projected).data() + begin * stride;
      context_.model->FinishLayer(layer_, attended, stride, rows, hidden);
      if (last) EnterLayer(layer_ + 1);
      break;
    }
    case Stage::kFinishRows:
      context_.model->FinishRows(rows, hidden);
      if (last) Enter(Stage::kEncode);
      break;
    case Stage::kAttend:
    case Stage::kEncode:
    case Stage::kDone:
      break;
  }
}

void CpuPass::ProjectPooledRows(int64_t begin, int64_t rows) {
  const int64_t hidden_size = context_.config.hidden_size;
  const int64_t stride = context_.query_width();
  for (int64_t s = begin; s < begin + rows; ++s) {
    std::memcpy(buffers_->pooled_hidden.data() + s * hidden_size,
                buffers_->hidden.data() + PooledToken(static_cast<int>(s)) * hidden_size,
                static_cast<size_t>(hidden_size) * sizeof(float));
  }
  context_.model->Project(layer_, Projection::kQuery,
                          buffers_->pooled_hidden.data() + begin * hidden_size,
                          pooled_positions_.data() + begin, rows,
                          buffers_->pooled_query.data() + begin * stride, stride);
}

bool CpuPass::AttendSome() {
  // Queries are cut at multiples of this, so that few of the kernel's tiles are partly filled.
  constexpr int64_t kQueryTile = 64;
  const ModelConfig& config = context_.config;
  const bool causal = config.family == Family::kQwen3;
  const int64_t macs_per_pair = 2 * context_.query_width();

  std::vector<cpu::AttentionSpan> now;
  for (int64_t macs = context_.attention_macs; macs > 0 && next_span_ < spans_.size();) {
    cpu::AttentionSpan& span = spans_[next_span_];
    cpu::AttentionSpan part = span;
    // An upper bound for causal attention, where a query sees the keys up to its own.
    int64_t pairs_per_query = span.prefix_count + span.kv_count;
    if (causal) pairs_per_query = std::min(pairs_per_query, span.q_position + span.q_count);
    const int64_t affordable = macs / (macs_per_pair * pairs_per_query) / kQueryTile * kQueryTile;
    part.q_count = std::min(span.q_count, std::max(affordable, kQueryTile));
    macs -= part.q_count * pairs_per_query * macs_per_pair;
    now.push_back(part);
    span.q_row += part.q_count;
    span.q_position += part.q_count;
    span.q_count -= part.q_count;
    if (span.q_count == 0) ++next_span_;
  }

  cpu::AttentionArgs args;
  float* projected = buffers_->projected.data();
  args.out = pruned() ? buffers_->pooled_query.data() : projected;
  args.q = args.out;
  args.q_stride = args.out_stride = pruned() ? context_.query_width() : context_.projection_width();
  args.k = projected + context_.query_width();
  args.v = args.k + context_.key_width();
  args.k_stride = args.v_stride = context_.projection_width();
  if (context_.prefixes != nullptr) {
    args.prefix_k = context_.prefix(layer_, 0);
    args.prefix_v = args.prefix_k + context_.key_width();
    args.prefix_stride = 2 * context_.key_width();
  }
  args.num_heads = config.num_heads;
  args.num_kv_heads = config.num_kv_heads;
  args.head_dim = config.head_dim;
  args.causal = causal;
  args.scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
  cpu::Attention(args, now, context_.pool);
  return next_span_ < spans_.size();
}

void CpuPass::EncodeAll() {
  const int num_sequences = batch_.num_sequences();
  results_.resize(num_sequences);
  const int64_t hidden_size = context_.config.hidden_size;
  std::vector<float> vectors(static_cast<size_t>(num_sequences * hidden_size));
  cpu::ParallelFor(context_.pool, num_sequences, [&](int64_t s) {
    results_[s] = Encode(static_cast<int>(s), vectors.data() + s * hidden_size);
  });
}

absl::StatusOr<EncodedVector> CpuPass::Encode(int sequence, float* vector) {
  const int64_t hidden_size = context_.config.hidden_size;
  const OutputSpec& output = batch_.outputs[sequence];
  const int64_t first = batch_.cu_seqlens[sequence];
  if (context_.prune_last) {
    cpu::PoolRows(cpu::PoolKind::kCls, buffers_->pooled_hidden.data() + sequence * hidden_size,
                  hidden_size, 1, output.dimensions, vector);
  } else {
    cpu::PoolRows(PoolKindOf(context_.config.pooling),
                  buffers_->hidden.data() + first * hidden_size, hidden_size,
                  batch_.cu_seqlens[sequence + 1] - first, output.dimensions, vector);
  }
  absl::Status status = VectorError(cpu::FinishVector(vector, output.dimensions, output.normalize));
  if (!status.ok()) return status;
  EncodedVector encoded;
  encoded.data.resize(OutputBytes(output.type, output.dimensions));
  status = VectorError(cpu::EncodeVector(EncodingOf(output.type), vector, output.dimensions,
                                         encoded.data.data(), &encoded.scale));
  if (!status.ok()) return status;
  return encoded;
}

}  // namespace quiver
