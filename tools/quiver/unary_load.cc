// Embed after Embed.
#include <algorithm>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/time/clock.h"
#include "grpcpp/grpcpp.h"
#include "tools/quiver/load_generator.h"

namespace quiver {
namespace {

class UnaryLoad : public LoadSource {
 public:
  UnaryLoad(const Workload& workload, const Plan& plan, std::vector<v1::EmbedService::Stub*> stubs)
      : workload_(workload),
        plan_(plan),
        stubs_(std::move(stubs)),
        recorder_(workload, plan.window),
        maker_(workload, plan.vocabulary_size, plan.seed, plan.lines) {}

  void Start() override {
    thread_ = std::thread([this] { workload_.open() ? SendOnTime() : KeepSending(); });
  }

  LoadResult Finish(LoadClock::time_point give_up) override {
    thread_.join();
    const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_open_ == 0; };
    absl::MutexLock lock(&mutex_);
    const auto left =
        std::chrono::duration_cast<std::chrono::nanoseconds>(give_up - LoadClock::now());
    if (!mutex_.AwaitWithTimeout(absl::Condition(&none), absl::FromChrono(left))) {
      for (Call* call : calls_) call->context.TryCancel();
      mutex_.Await(absl::Condition(&none));
    }
    return recorder_.Take();
  }

 private:
  struct Call {
    LoadClock::time_point due;
    LoadClock::time_point sent;
    grpc::ClientContext context;
    v1::EmbedRequest request;
    v1::EmbedResponse response;
  };

  void SendOnTime() {
    Arrivals arrivals(workload_.rate, workload_.even, plan_.seed);
    for (;;) {
      const auto due = plan_.start + std::chrono::duration_cast<LoadClock::duration>(
                                         std::chrono::duration<double>(arrivals.Next()));
      if (due >= plan_.window.end) return;
      std::this_thread::sleep_until(due);
      Send(due);
    }
  }

  void KeepSending() {
    const auto room = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return num_open_ < workload_.outstanding;
    };
    while (LoadClock::now() < plan_.window.end) {
      {
        absl::MutexLock lock(&mutex_);
        const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(plan_.window.end -
                                                                               LoadClock::now());
        if (!mutex_.AwaitWithTimeout(absl::Condition(&room), absl::FromChrono(left))) return;
      }
      Send(LoadClock::now());
    }
  }

  void Send(LoadClock::time_point due) {
    auto* call = new Call;
    call->due = due;
    for (int i = 0; i < workload_.items; ++i) maker_.Make(call->request.add_inputs());
    call->request.mutable_options()->set_lane(workload_.lane == Lane::kBulk ? v1::LANE_BULK
                                                                            : v1::LANE_INTERACTIVE);
    if (!workload_.tenant.empty()) call->context.AddMetadata("quiver-tenant", workload_.tenant);
    if (workload_.deadline != absl::InfiniteDuration()) {
      call->context.set_deadline(absl::ToChronoTime(absl::Now() + workload_.deadline));
    }
    {
      absl::MutexLock lock(&mutex_);
      calls_.insert(call);
      ++num_open_;
    }
    call->sent = LoadClock::now();
    stubs_[next_stub_]->async()->Embed(
        &call->context, &call->request, &call->response,
        [this, call](const grpc::Status& status) { Answered(call, status); });
    next_stub_ = (next_stub_ + 1) % stubs_.size();
  }

  void Answered(Call* call, const grpc::Status& status) {
    RequestOutcome outcome{call->due, call->sent, LoadClock::now(), workload_.items};
    for (const v1::EmbedResult& result : call->response.results()) {
      if (result.has_error()) {
        ++outcome.failures[static_cast<absl::StatusCode>(result.error().code())];
      } else {
        ++outcome.items_ok;
        outcome.tokens_ok += result.embedding().token_count();
      }
    }
    if (!status.ok()) {
      outcome.failures[static_cast<absl::StatusCode>(status.error_code())] = workload_.items;
    }
    recorder_.Add(outcome);
    {
      absl::MutexLock lock(&mutex_);
      calls_.erase(call);
    }
    // Before Finish returns, whose caller then lets go of the channel: were the call the last to
    // hold it, gRPC would wait here, on a thread of its own, for the end of this thread.
    delete call;
    absl::MutexLock lock(&mutex_);
    --num_open_;
  }

  const Workload workload_;
  const Plan plan_;
  const std::vector<v1::EmbedService::Stub*> stubs_;
  LoadRecorder recorder_;
  // Of the sending thread.
  InputMaker maker_;
  size_t next_stub_ = 0;
  std::thread thread_;
  absl::Mutex mutex_;
  // Those that can be cancelled.
  absl::flat_hash_set<Call*> calls_ ABSL_GUARDED_BY(mutex_);
  int num_open_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

std::unique_ptr<LoadSource> MakeUnaryLoad(const Workload& workload, const LoadSource::Plan& plan,
                                          std::vector<v1::EmbedService::Stub*> stubs) {
  return std::make_unique<UnaryLoad>(workload, plan, std::move(stubs));
}

}  // namespace quiver
