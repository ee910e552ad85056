// How long the device stands still between two batches while work waits, seen from the device: a
// scheduler over a device of stated speed, or over the CPU backend of a model, kept full by
// producers that send requests of several inputs and wait for their vectors.
//
// Usage: device_gap [MODEL_DIR]. Without a model the device sleeps 1 us a token, in steps of 2 ms.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/model_files.h"
#include "engine/run/create_backend.h"
#include "engine/schedule/scheduler.h"
#include "engine/schedule/warm_up.h"

namespace quiver {
namespace {

constexpr int kProducers = 4;
constexpr absl::Duration kRunTime = absl::Seconds(4);

// Sleeps for its work and copies what it gives out of one block, as a device's driver does.
class SleepingBackend : public Backend {
 public:
  SleepingBackend() : vectors_(size_t{kDimensions} * 4 * kMaxSequences, 'x') {
    info_.max_batch_tokens = 16'384;
    info_.max_sequence_tokens = 8192;
    info_.max_batch_sequences = kMaxSequences;
  }
  const BackendInfo& info() const override { return info_; }
  absl::StatusOr<std::unique_ptr<Pass>> Begin(PackedBatch batch) override {
    return std::make_unique<SleepingPass>(&vectors_, std::move(batch));
  }
  absl::StatusOr<std::unique_ptr<Pass>> Prepare(PackedBatch batch, const Pass&) override {
    return Begin(std::move(batch));
  }

 private:
  static constexpr int kDimensions = 1024;
  static constexpr int kMaxSequences = 1024;

  class SleepingPass : public Pass {
   public:
    SleepingPass(const std::string* vectors, PackedBatch batch)
        : vectors_(vectors), batch_(std::move(batch)), left_(absl::Microseconds(100)) {
      left_ += absl::Microseconds(batch_.num_tokens());
    }
    absl::StatusOr<bool> Run(int64_t max_us) override {
      const absl::Duration step = std::min(left_, absl::Microseconds(max_us));
      absl::SleepFor(step);
      left_ -= step;
      return left_ <= absl::ZeroDuration();
    }
    std::vector<absl::StatusOr<EncodedVector>> Finish() override {
      std::vector<absl::StatusOr<EncodedVector>> out;
      for (int s = 0; s < batch_.num_sequences(); ++s) {
        out.emplace_back(
            EncodedVector{vectors_->substr(s * size_t{kDimensions} * 4, size_t{kDimensions} * 4)});
      }
      return out;
    }

   private:
    const std::string* const vectors_;
    const PackedBatch batch_;
    absl::Duration left_;
  };

  const std::string vectors_;
  BackendInfo info_;
};

// What happens at the device's door: from the end of a pass's last step to the start of the next
// step of any.
class GapWatch : public Backend {
 public:
  explicit GapWatch(Backend* backend) : backend_(backend) {}
  const BackendInfo& info() const override { return backend_->info(); }
  absl::StatusOr<std::unique_ptr<Pass>> Begin(PackedBatch batch) override {
    tokens_ += batch.num_tokens();
    auto pass = backend_->Begin(std::move(batch));
    if (!pass.ok()) return pass;
    return std::make_unique<WatchedPass>(this, *std::move(pass), 0);
  }
  absl::StatusOr<std::unique_ptr<Pass>> Prepare(PackedBatch batch, const Pass& before) override {
    const int tokens = batch.num_tokens();
    auto pass = backend_->Prepare(std::move(batch), before);
    if (!pass.ok()) return pass;
    return std::make_unique<WatchedPass>(this, *std::move(pass), tokens);
  }

  void Print(const char* name, absl::Duration time) {
    if (gaps_us_.empty()) return;
    std::sort(gaps_us_.begin(), gaps_us_.end());
    const auto at = [&](double part) {
      return gaps_us_[static_cast<size_t>(part * static_cast<double>(gaps_us_.size() - 1))];
    };
    std::printf(
        "%-24s %6zu gaps   p50 %7.0f us   p95 %7.0f us   p99 %7.0f us   busy %.3f   %.0f "
        "tokens/s\n",
        name, gaps_us_.size(), at(0.5), at(0.95), at(0.99), absl::FDivDuration(busy_, time),
        static_cast<double>(tokens_) / absl::ToDoubleSeconds(time));
  }

 private:
  class WatchedPass : public Pass {
   public:
    WatchedPass(GapWatch* watch, std::unique_ptr<Pass> pass, int tokens)
        : watch_(watch), pass_(std::move(pass)), tokens_(tokens) {}
    bool Claim() override {
      watch_->tokens_ += tokens_;
      return pass_->Claim();
    }
    absl::StatusOr<bool> Run(int64_t max_us) override {
      const absl::Time start = absl::Now();
      if (watch_->ended_ != absl::InfinitePast()) {
        watch_->gaps_us_.push_back(absl::ToDoubleMicroseconds(start - watch_->ended_));
      }
      absl::StatusOr<bool> complete = pass_->Run(max_us);
      const absl::Time end = absl::Now();
      watch_->busy_ += end - start;
      watch_->ended_ = complete.ok() && *complete ? end : absl::InfinitePast();
      return complete;
    }
    std::vector<absl::StatusOr<EncodedVector>> Finish() override { return pass_->Finish(); }

   private:
    GapWatch* const watch_;
    const std::unique_ptr<Pass> pass_;
    // To be counted when it is claimed.
    const int tokens_;
  };

  Backend* const backend_;
  std::atomic<int64_t> tokens_{0};
  std::vector<double> gaps_us_;
  absl::Duration busy_;
  absl::Time ended_ = absl::InfinitePast();
};

struct Load {
  const char* name;
  Lane lane;
  int length;
  // Inputs of a request, and inputs that all producers together have on their way.
  int items;
  int in_flight;
  int vocabulary;
};

void Produce(const Load& load, int producer, Scheduler* scheduler, const std::atomic<bool>* stop) {
  absl::Mutex mutex;
  int in_flight = 0;
  const int most = load.in_flight / kProducers;
  const auto room = [&] {
    mutex.AssertReaderHeld();
    return in_flight + load.items <= most;
  };
  const auto none = [&] {
    mutex.AssertReaderHeld();
    return in_flight == 0;
  };
  uint32_t random = static_cast<uint32_t>(producer) + 1;
  std::vector<std::string> kept(static_cast<size_t>(load.items));
  while (!*stop) {
    {
      absl::MutexLock lock(&mutex, absl::Condition(&room));
      in_flight += load.items;
    }
    for (int i = 0; i < load.items; ++i) {
      EmbedTask task;
      for (int k = 0; k < load.length; ++k) {
        random = random * 1664525 + 1013904223;
        task.token_ids.push_back(
            static_cast<TokenId>((random >> 8) % static_cast<uint32_t>(load.vocabulary)));
      }
      task.output.dimensions = 64;
      task.lane = load.lane;
      task.done = [&](TaskResult result) {
        if (!result.vector.ok()) std::exit(1);
        const std::string vector = std::move(result.vector->data);
        absl::MutexLock lock(&mutex);
        --in_flight;
      };
      if (!scheduler->Submit(std::move(task)).ok()) std::exit(1);
    }
  }
  absl::MutexLock lock(&mutex, absl::Condition(&none));
}

bool Run(const Load& load, Backend* backend, const CostModel& cost) {
  GapWatch watch(backend);
  auto scheduler = Scheduler::Create({.cost_model = cost}, &watch, nullptr);
  if (!scheduler.ok()) return false;
  std::atomic<bool> stop{false};
  std::vector<std::thread> producers;
  const absl::Time begin = absl::Now();
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&, p] { Produce(load, p, scheduler->get(), &stop); });
  }
  absl::SleepFor(kRunTime);
  stop = true;
  for (std::thread& producer : producers) producer.join();
  const absl::Duration time = absl::Now() - begin;
  scheduler->reset();
  watch.Print(load.name, time);
  return true;
}

int Main(const char* model) {
  SleepingBackend sleeping;
  std::unique_ptr<Backend> loaded;
  Backend* backend = &sleeping;
  int vocabulary = 30'000;
  if (model != nullptr) {
    auto files = OpenModelFiles(model, "", QuantizationChoice::kAuto);
    if (!files.ok()) return 1;
    auto made = CreateBackend(files->info.config, files->weights,
                              {.device = {DeviceChoice::Kind::kCpu, 0}});
    if (!made.ok()) return 1;
    loaded = *std::move(made);
    backend = loaded.get();
    vocabulary = files->info.config.vocab_size;
  }
  CostModel cost;
  if (!WarmUp(backend, vocabulary, &cost).ok()) return 1;
  for (const Load& load : {Load{"queries, 1 a request", Lane::kInteractive, 32, 1, 512, 0},
                           Load{"queries, deep queue", Lane::kInteractive, 32, 16, 4096, 0},
                           Load{"documents, deep queue", Lane::kBulk, 512, 16, 512, 0},
                           Load{"short documents", Lane::kBulk, 32, 64, 8192, 0}}) {
    Load full = load;
    full.vocabulary = vocabulary;
    if (model != nullptr) full.in_flight /= 8;
    if (!Run(full, backend, cost)) return 1;
  }
  return 0;
}

}  // namespace
}  // namespace quiver

int main(int argc, char** argv) { return quiver::Main(argc > 1 ? argv[1] : nullptr); }
