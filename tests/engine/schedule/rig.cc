#include "tests/engine/schedule/rig.h"

#include <utility>

#include "gtest/gtest.h"

namespace quiver {
namespace {

FakeBackend::Options OnClock(FakeBackend::Options options, VirtualClock* clock) {
  options.clock = clock;
  return options;
}

}  // namespace

Rig::Rig(FakeBackend::Options backend_options, Scheduler::Options options)
    : backend(OnClock(std::move(backend_options), &clock)),
      prefixes(backend.info().prefix_tokens > 0
                   ? std::make_unique<PrefixCache>(backend.info().prefix_tokens)
                   : nullptr),
      core(options, backend.info(), &observer),
      loop_(
          &core, &mutex_, &backend, [this] { return now(); },
          [this](const absl::Status& why) { lost.push_back(why); }) {}

Rig::~Rig() {
  core.FailWaiting(absl::UnavailableError("the test is over"), now());
  core.FailRunning(absl::UnavailableError("the test is over"), now());
  RunAll();
  Deliver();
  EXPECT_TRUE(core.idle());
  EXPECT_TRUE(core.quiet());
  for (const Sent& task : sent) {
    EXPECT_EQ(task.times_done, task.submitted.ok() ? 1 : 0);
    if (task.done() && task.result->vector.ok()) {
      EXPECT_EQ(task.result->vector->data, FakeVector(task.ids, task.output).data);
    }
  }
}

Sent& Rig::Send(const Wish& wish) {
  Sent& task = sent.emplace_back();
  task.ids = wish.ids;
  if (task.ids.empty()) {
    task.ids.assign(static_cast<size_t>(wish.length), 7);
    task.ids[0] = next_id_++;
  }
  task.output = wish.output;
  task.at = clock.Now();
  EmbedTask out;
  out.token_ids = task.ids;
  out.output = wish.output;
  out.lane = wish.lane;
  out.deadline = clock.Now() + wish.timeout;
  out.cancellation = wish.cancellation;
  out.tenant = wish.tenant;
  out.done = [this, &task](TaskResult result) {
    ++task.times_done;
    task.result = std::move(result);
    task.done_at = clock.Now();
    task.rank = answered_++;
  };
  auto findings = SchedulerCore::Findings::Of(out, prefixes.get());
  absl::MutexLock lock(&mutex_);
  task.submitted = core.Submit(std::move(out), std::move(findings), now());
  // NOLINTNEXTLINE(bugprone-use-after-move): a refused task is left as it was.
  if (!task.submitted.ok()) {
    EXPECT_EQ(out.token_ids, task.ids);
  }
  return task;
}

std::vector<Sent*> Rig::SendMany(int n, const Wish& wish) {
  std::vector<Sent*> out;
  for (int i = 0; i < n; ++i) out.push_back(&Send(wish));
  return out;
}

void Rig::RunAll() {
  while (Turn()) {
  }
}

bool Rig::RunWhile(const std::function<bool()>& more) {
  while (more()) {
    if (!Turn()) return false;
  }
  return true;
}

CostModel LearnedCost(double fixed_us, double token_us, double pair_us) {
  CostModel model;
  for (int64_t length : {1, 8, 64, 512, 4096}) {
    for (int64_t n : {1, 16}) {
      const CostModel::Work work{n * length, n * length * length};
      model.Observe(work,
                    fixed_us + token_us * static_cast<double>(work.tokens) +
                        pair_us * static_cast<double>(work.pairs),
                    /*keep=*/true);
    }
  }
  return model;
}

std::vector<TokenId> Ids(int length, TokenId first) {
  std::vector<TokenId> ids(static_cast<size_t>(length), 7);
  ids[0] = first;
  return ids;
}

}  // namespace quiver
