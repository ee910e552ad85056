#include "engine/schedule/warm_up.h"

#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/schedule/guarded.h"

namespace quiver {
namespace {

// No pass is begun that would end later, as far as is known by then.
constexpr absl::Duration kEnough = absl::Milliseconds(300);

struct Shape {
  int sequences;
  int length;
};

// Each of the three terms of the cost is the greatest part of some pass's: the overhead of the
// first ones, the tokens of the middle ones, the attention of {1, 1024}. The last are large enough
// to fill a fast device: smaller ones say little of what a token takes in a full batch.
constexpr Shape kShapes[] = {{1, 8},   {1, 8},    {1, 64},  {8, 32},  {1, 256},
                             {8, 128}, {1, 1024}, {8, 512}, {16, 512}};

using Vectors = std::vector<absl::StatusOr<EncodedVector>>;

absl::StatusOr<Vectors> RunOnce(Backend* backend, PackedBatch batch) {
  const size_t sequences = batch.outputs.size();
  auto pass = backend->Begin(std::move(batch));
  if (!pass.ok()) return pass.status();
  if (*pass == nullptr) return absl::InternalError("the backend gave no pass");
  for (;;) {
    absl::StatusOr<bool> complete = (*pass)->Run(std::numeric_limits<int32_t>::max());
    if (!complete.ok()) return complete.status();
    if (*complete) break;
  }
  auto vectors = (*pass)->Finish();
  if (vectors.size() != sequences) {
    return absl::InternalError(absl::StrCat("the backend gave ", vectors.size(), " results for ",
                                            sequences, " sequences"));
  }
  return vectors;
}

PackedBatch BatchOf(const Shape& shape, int vocabulary_size) {
  PackedBatch batch;
  uint32_t id = 1;
  for (int s = 0; s < shape.sequences; ++s) {
    std::vector<TokenId> ids(static_cast<size_t>(shape.length));
    for (TokenId& value : ids) {
      // Ids from all over the vocabulary, as texts have them.
      id = id * 1664525 + 1013904223;
      value = static_cast<TokenId>((id >> 8) % static_cast<uint32_t>(vocabulary_size));
    }
    batch.Append(ids, OutputSpec{.dimensions = 1});
  }
  return batch;
}

}  // namespace

absl::Status WarmUp(Backend* backend, int vocabulary_size, CostModel* cost) {
  const BackendInfo& info = backend->info();
  const absl::Time start = absl::Now();
  bool first = true;
  bool usable = false;
  absl::Status unusable;
  for (const Shape& shape : kShapes) {
    if (shape.length > info.max_sequence_tokens || shape.sequences > info.max_batch_sequences ||
        shape.sequences * shape.length > info.max_batch_tokens) {
      continue;
    }
    const int64_t length = shape.length;
    const CostModel::Work work = {shape.sequences * length, shape.sequences * length * length};
    const absl::Time begin = absl::Now();
    if (begin + absl::Microseconds(cost->PredictUs(work)) > start + kEnough) break;
    const absl::StatusOr<Vectors> vectors =
        Guarded([&] { return RunOnce(backend, BatchOf(shape, vocabulary_size)); });
    if (!vectors.ok()) return vectors.status();
    const absl::Time end = absl::Now();
    for (const auto& vector : *vectors) {
      usable |= vector.ok();
      unusable.Update(vector.status());
    }
    // The very first pass takes what only the first one takes.
    if (!first) cost->Observe(work, absl::ToDoubleMicroseconds(end - begin), /*keep=*/true);
    first = false;
  }
  // Some of the vocabulary may be of no use: random ids say nothing of the texts that will come.
  return usable ? absl::OkStatus() : unusable;
}

absl::Status StorePrefixes(Backend* backend, absl::Span<const std::vector<TokenId>> prefixes,
                           PrefixCache* cache) {
  for (const std::vector<TokenId>& ids : prefixes) {
    if (ids.size() > static_cast<size_t>(backend->info().max_sequence_tokens)) continue;
    const auto hold = cache->Add(ids);
    if (hold == nullptr) continue;
    PackedBatch batch;
    batch.Append(ids, OutputSpec{.dimensions = 1}, hold->use());
    const absl::StatusOr<Vectors> vectors =
        Guarded([&] { return RunOnce(backend, std::move(batch)); });
    if (!vectors.ok()) return vectors.status();
    if (!vectors->front().ok()) return vectors->front().status();
    hold->Stored();
  }
  return absl::OkStatus();
}

}  // namespace quiver
