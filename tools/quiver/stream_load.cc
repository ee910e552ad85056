// One EmbedStream, fed as the workload says.
#include <algorithm>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "grpcpp/grpcpp.h"
#include "tools/quiver/load_generator.h"

namespace quiver {
namespace {

// A message of this many items costs little beside their work.
constexpr int kItemsPerMessage = 64;

class StreamLoad : public LoadSource {
 public:
  StreamLoad(const Workload& workload, const Plan& plan, v1::EmbedService::Stub* stub)
      : workload_(workload),
        plan_(plan),
        stub_(stub),
        recorder_(workload, plan.window),
        maker_(workload, plan.vocabulary_size, plan.seed, plan.lines),
        arrivals_(std::max(workload.rate, 1e-9), workload.even, plan.seed) {}

  void Start() override {
    if (!workload_.tenant.empty()) context_.AddMetadata("quiver-tenant", workload_.tenant);
    stream_ = stub_->EmbedStream(&context_);
    writer_ = std::thread([this] { Write(); });
    reader_ = std::thread([this] { Read(); });
  }

  LoadResult Finish(LoadClock::time_point give_up) override {
    {
      absl::MutexLock lock(&mutex_);
      const auto left =
          std::chrono::duration_cast<std::chrono::nanoseconds>(give_up - LoadClock::now());
      if (!mutex_.AwaitWithTimeout(absl::Condition(&ended_), absl::FromChrono(left))) {
        context_.TryCancel();
      }
    }
    writer_.join();
    reader_.join();
    const grpc::Status status = stream_->Finish();
    const auto code = status.ok() ? absl::StatusCode::kInternal
                                  : static_cast<absl::StatusCode>(status.error_code());
    absl::MutexLock lock(&mutex_);
    for (const auto& [index, item] : waiting_) {
      recorder_.Add({item.due, item.sent, LoadClock::now(), 1, 0, 0, {{code, 1}}});
    }
    return recorder_.Take();
  }

 private:
  struct Item {
    LoadClock::time_point due;
    LoadClock::time_point sent;
  };

  // When the next items are due, which are then to be sent; nothing once there are no more.
  std::vector<LoadClock::time_point> Due() { return workload_.open() ? DueOnTime() : DueForRoom(); }

  std::vector<LoadClock::time_point> DueOnTime() {
    std::vector<LoadClock::time_point> due;
    for (;;) {
      if (next_due_ == LoadClock::time_point()) {
        next_due_ = plan_.start + std::chrono::duration_cast<LoadClock::duration>(
                                      std::chrono::duration<double>(arrivals_.Next()));
      }
      if (next_due_ >= plan_.window.end || due.size() == kItemsPerMessage) return due;
      if (next_due_ > LoadClock::now()) {
        if (!due.empty()) return due;
        std::this_thread::sleep_until(next_due_);
      }
      due.push_back(std::exchange(next_due_, LoadClock::time_point()));
    }
  }

  std::vector<LoadClock::time_point> DueForRoom() {
    const auto room = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return ended_ || static_cast<int>(waiting_.size()) < workload_.outstanding;
    };
    absl::MutexLock lock(&mutex_);
    const auto left =
        std::chrono::duration_cast<std::chrono::nanoseconds>(plan_.window.end - LoadClock::now());
    if (!mutex_.AwaitWithTimeout(absl::Condition(&room), absl::FromChrono(left)) || ended_) {
      return {};
    }
    const LoadClock::time_point now = LoadClock::now();
    if (now >= plan_.window.end) return {};
    const int free = workload_.outstanding - static_cast<int>(waiting_.size());
    return std::vector<LoadClock::time_point>(static_cast<size_t>(std::min(free, kItemsPerMessage)),
                                              now);
  }

  void Write() {
    v1::EmbedStreamRequest message;
    message.mutable_start()->mutable_options()->set_lane(
        workload_.lane == Lane::kBulk ? v1::LANE_BULK : v1::LANE_INTERACTIVE);
    uint64_t next = 0;
    for (bool sent = stream_->Write(message); sent; sent = stream_->Write(message)) {
      const std::vector<LoadClock::time_point> due = Due();
      if (due.empty()) break;
      message.Clear();
      for (size_t i = 0; i < due.size(); ++i) maker_.Make(message.add_inputs());
      absl::MutexLock lock(&mutex_);
      const LoadClock::time_point now = LoadClock::now();
      for (const LoadClock::time_point time : due) waiting_[next++] = {time, now};
    }
    stream_->WritesDone();
  }

  void Read() {
    v1::EmbedStreamResponse response;
    while (stream_->Read(&response)) {
      const LoadClock::time_point now = LoadClock::now();
      absl::MutexLock lock(&mutex_);
      for (const v1::EmbedResult& result : response.results()) {
        const auto found = waiting_.find(result.index());
        if (found == waiting_.end()) continue;
        RequestOutcome outcome{found->second.due, found->second.sent, now, 1};
        waiting_.erase(found);
        if (result.has_error()) {
          outcome.failures[static_cast<absl::StatusCode>(result.error().code())] = 1;
        } else {
          outcome.items_ok = 1;
          outcome.tokens_ok = result.embedding().token_count();
        }
        recorder_.Add(outcome);
      }
    }
    absl::MutexLock lock(&mutex_);
    ended_ = true;
  }

  const Workload workload_;
  const Plan plan_;
  v1::EmbedService::Stub* const stub_;
  LoadRecorder recorder_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::EmbedStreamRequest, v1::EmbedStreamResponse>>
      stream_;
  // Of the writing thread.
  InputMaker maker_;
  Arrivals arrivals_;
  LoadClock::time_point next_due_;
  std::thread writer_;
  std::thread reader_;
  absl::Mutex mutex_;
  // Written and not answered, by their index in the stream.
  absl::flat_hash_map<uint64_t, Item> waiting_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

std::unique_ptr<LoadSource> MakeStreamLoad(const Workload& workload, const LoadSource::Plan& plan,
                                           v1::EmbedService::Stub* stub) {
  return std::make_unique<StreamLoad>(workload, plan, stub);
}

}  // namespace quiver
