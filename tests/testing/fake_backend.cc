#include "tests/testing/fake_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace quiver {
namespace {

// splitmix64's finalizer: every bit of the input reaches every bit of the output.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

template <typename T>
void AppendBytes(T value, std::string* out) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out->append(bytes, sizeof(T));
}

uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// Of a magnitude in [2^-14, 1], which every fake value is rounded into: no subnormal, no infinity.
uint16_t ToFloat16(float value) {
  const uint32_t bits = Bits(value);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude < 0x38800000) return static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return static_cast<uint16_t>(((bits >> 16) & 0x8000) | ((rounded - 0x38000000) >> 13));
}

uint16_t ToBfloat16(float value) {
  const uint32_t bits = Bits(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

EncodedVector Encode(const std::vector<float>& values, OutputType type) {
  EncodedVector out;
  switch (type) {
    case OutputType::kFloat32:
      for (float v : values) AppendBytes(v, &out.data);
      break;
    case OutputType::kFloat16:
      for (float v : values) AppendBytes(ToFloat16(v), &out.data);
      break;
    case OutputType::kBfloat16:
      for (float v : values) AppendBytes(ToBfloat16(v), &out.data);
      break;
    case OutputType::kInt8: {
      float largest = 0;
      for (float v : values) largest = std::max(largest, std::fabs(v));
      out.scale = largest / 127;
      for (float v : values) {
        AppendBytes(static_cast<int8_t>(std::lround(v / out.scale)), &out.data);
      }
      break;
    }
    case OutputType::kBinary:
      out.data.assign((values.size() + 7) / 8, '\0');
      for (size_t i = 0; i < values.size(); ++i) {
        if (values[i] > 0) out.data[i / 8] |= static_cast<char>(0x80 >> (i % 8));
      }
      break;
  }
  return out;
}

}  // namespace

EncodedVector FakeVector(absl::Span<const TokenId> ids, const OutputSpec& spec) {
  uint64_t digest = ids.size();
  for (TokenId id : ids) digest = Mix(digest ^ static_cast<uint32_t>(id));
  std::vector<float> values(spec.dimensions);
  double sum = 0;
  for (int i = 0; i < spec.dimensions; ++i) {
    // Uniform over (-1, 1) without 0.
    const uint64_t bits = Mix(digest + static_cast<uint64_t>(i)) >> 40;
    values[i] = (static_cast<float>(bits) + 0.5f) / static_cast<float>(1 << 23) - 1.0f;
    sum += static_cast<double>(values[i]) * values[i];
  }
  if (spec.normalize) {
    const float factor = static_cast<float>(1 / std::sqrt(sum));
    for (float& v : values) v *= factor;
  }
  return Encode(values, spec.type);
}

class FakeBackend::FakePass : public Pass {
 public:
  FakePass(FakeBackend* backend, PackedBatch batch)
      : backend_(backend), batch_(std::move(batch)), left_us_(backend->CostUs(batch_)) {
    for (int s = 0; s < batch_.num_sequences(); ++s) ids_.push_back(backend->Ids(batch_, s));
  }
  ~FakePass() override { Leave(); }

  absl::Status Enter(bool prepared) {
    if (absl::Status s = backend_->CheckPlace(batch_); !s.ok()) return s;
    if (backend_->options_.keep_records) index_ = backend_->Record(batch_, prepared);
    if (backend_->options_.on_begin) {
      if (absl::Status s = backend_->options_.on_begin(batch_); !s.ok()) return s;
    }
    ++backend_->alive_;
    has_place_ = true;
    return absl::OkStatus();
  }

  bool Claim() override { return Enter(/*prepared=*/true).ok(); }

  absl::StatusOr<bool> Run(int64_t max_us) override {
    double spent_us = 0;
    do {
      if (backend_->options_.on_step) {
        if (absl::Status s = backend_->options_.on_step(batch_, step_); !s.ok()) return s;
      }
      ++step_;
      const double limit_us = backend_->options_.step_us;
      const double step_us = limit_us > 0 ? std::min(limit_us, left_us_) : left_us_;
      backend_->Spend(step_us);
      spent_us += step_us;
      left_us_ -= step_us;
      // A remainder below a nanosecond is rounding, not work.
    } while (left_us_ > 1e-3 && spent_us < static_cast<double>(max_us));
    if (left_us_ > 1e-3) return false;
    StorePrefixes();
    Leave();
    return true;
  }

  std::vector<absl::StatusOr<EncodedVector>> Finish() override {
    std::vector<absl::StatusOr<EncodedVector>> out;
    out.reserve(batch_.outputs.size());
    for (int s = 0; s < batch_.num_sequences(); ++s) {
      const std::vector<TokenId>& ids = ids_[static_cast<size_t>(s)];
      absl::Status status;
      if (backend_->options_.on_sequence) status = backend_->options_.on_sequence(ids);
      if (status.ok()) {
        out.push_back(FakeVector(ids, batch_.outputs[s]));
      } else {
        out.push_back(status);
      }
    }
    absl::MutexLock lock(&backend_->mutex_);
    if (backend_->options_.keep_records) backend_->passes_[index_].finished = true;
    return out;
  }

 private:
  void Leave() {
    if (std::exchange(has_place_, false)) --backend_->alive_;
  }

  void StorePrefixes() {
    absl::MutexLock lock(&backend_->mutex_);
    for (int s = 0; s < batch_.num_sequences(); ++s) {
      const PrefixUse prefix = batch_.prefix(s);
      if (!prefix.store) continue;
      std::copy_n(ids_[static_cast<size_t>(s)].begin(), prefix.length,
                  backend_->prefixes_.begin() + prefix.row);
    }
  }

  FakeBackend* const backend_;
  const PackedBatch batch_;
  // Of each sequence, with what is reused.
  std::vector<std::vector<TokenId>> ids_;
  size_t index_ = 0;
  bool has_place_ = false;
  double left_us_;
  int step_ = 0;
};

FakeBackend::FakeBackend(Options options) : options_(std::move(options)) {
  info_.device = "fake";
  info_.arithmetic = "fake";
  info_.max_batch_tokens = options_.max_batch_tokens;
  info_.max_sequence_tokens = options_.max_sequence_tokens;
  info_.max_batch_sequences = options_.max_batch_sequences;
  info_.max_second_batch_tokens = options_.max_second_batch_tokens;
  info_.prefix_tokens = options_.prefix_tokens;
  info_.memory = options_.memory;
  info_.longest_call = options_.longest_call;
  prefixes_.resize(static_cast<size_t>(options_.prefix_tokens), -1);
}

namespace {

template <typename... What>
absl::Status Broken(const What&... what) {
  return absl::FailedPreconditionError(absl::StrCat("broken batch: ", what...));
}

}  // namespace

absl::Status FakeBackend::Check(const PackedBatch& batch, const Options& options) {
  if (batch.num_sequences() < 1) return Broken("no sequence");
  if (batch.num_sequences() > options.max_batch_sequences) {
    return Broken(batch.num_sequences(), " sequences");
  }
  if (batch.num_tokens() > options.max_batch_tokens) return Broken(batch.num_tokens(), " tokens");
  if (batch.cu_seqlens.size() != batch.outputs.size() + 1 || batch.cu_seqlens.front() != 0 ||
      batch.cu_seqlens.back() != batch.num_tokens()) {
    return Broken("cu_seqlens");
  }
  for (int s = 0; s < batch.num_sequences(); ++s) {
    const PrefixUse prefix = batch.prefix(s);
    const int length = batch.cu_seqlens[s + 1] - batch.cu_seqlens[s];
    if (prefix.row < 0 || prefix.row + prefix.length > options.prefix_tokens ||
        (prefix.store && prefix.length > length)) {
      return Broken("a prefix of ", prefix.length, " tokens");
    }
    if (length < 1 || length + prefix.reused() > options.max_sequence_tokens) {
      return Broken("sequence ", s, " of ", length, " tokens");
    }
  }
  return absl::OkStatus();
}

absl::Status FakeBackend::CheckPlace(const PackedBatch& batch) const {
  if (alive_ >= 2) return Broken("a third pass");
  if (alive_ == 1 && options_.max_second_batch_tokens > 0 &&
      batch.num_tokens() > options_.max_second_batch_tokens) {
    return Broken(batch.num_tokens(), " tokens beside another pass");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Pass>> FakeBackend::Begin(PackedBatch batch) {
  if (absl::Status s = Check(batch, options_); !s.ok()) return s;
  auto pass = std::make_unique<FakePass>(this, std::move(batch));
  if (absl::Status s = pass->Enter(/*prepared=*/false); !s.ok()) return s;
  return pass;
}

absl::StatusOr<std::unique_ptr<Pass>> FakeBackend::Prepare(PackedBatch batch, const Pass&) {
  if (absl::Status s = Check(batch, options_); !s.ok()) return s;
  return std::make_unique<FakePass>(this, std::move(batch));
}

size_t FakeBackend::Record(const PackedBatch& batch, bool prepared) {
  PassRecord record;
  for (int s = 0; s < batch.num_sequences(); ++s) {
    record.lengths.push_back(batch.cu_seqlens[s + 1] - batch.cu_seqlens[s]);
  }
  record.tokens = batch.num_tokens();
  record.prepared = prepared;
  absl::MutexLock lock(&mutex_);
  passes_.push_back(std::move(record));
  return passes_.size() - 1;
}

std::vector<TokenId> FakeBackend::Ids(const PackedBatch& batch, int sequence) const {
  std::vector<TokenId> ids;
  const PrefixUse prefix = batch.prefix(sequence);
  if (prefix.reused() > 0) {
    absl::MutexLock lock(&mutex_);
    const auto first = prefixes_.begin() + prefix.row;
    ids.assign(first, first + prefix.reused());
  }
  ids.insert(ids.end(), batch.token_ids.begin() + batch.cu_seqlens[sequence],
             batch.token_ids.begin() + batch.cu_seqlens[sequence + 1]);
  return ids;
}

double FakeBackend::CostUs(const PackedBatch& batch) const {
  double us = options_.fixed_us + options_.token_us * batch.num_tokens();
  for (int s = 0; s < batch.num_sequences(); ++s) {
    const double length = batch.cu_seqlens[s + 1] - batch.cu_seqlens[s];
    us += options_.token_pair_us * length * length;
  }
  return us;
}

void FakeBackend::Spend(double us) {
  if (us <= 0) return;
  if (options_.clock != nullptr) {
    options_.clock->Advance(absl::Microseconds(us));
  } else {
    absl::SleepFor(absl::Microseconds(us));
  }
}

std::vector<FakeBackend::PassRecord> FakeBackend::Passes() const {
  absl::MutexLock lock(&mutex_);
  return passes_;
}

int64_t FakeBackend::TokensRun() const {
  absl::MutexLock lock(&mutex_);
  int64_t tokens = 0;
  for (const PassRecord& pass : passes_) {
    if (pass.finished) tokens += pass.tokens;
  }
  return tokens;
}

}  // namespace quiver
