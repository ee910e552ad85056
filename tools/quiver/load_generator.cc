#include "tools/quiver/load_generator.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tools/quiver/remote_executor.h"

namespace quiver {
namespace {

// A connection that is not up by then will not be.
constexpr std::chrono::seconds kConnectTime{10};

// Words that most vocabularies have whole, with the space before them.
constexpr const char* kWords[] = {
    "the",   "of",    "and",   "to",     "in",     "is",    "was",   "for",   "on",   "with",
    "as",    "by",    "that",  "from",   "at",     "his",   "it",    "an",    "were", "are",
    "which", "this",  "also",  "be",     "had",    "first", "one",   "their", "its",  "new",
    "after", "who",   "they",  "two",    "her",    "she",   "been",  "other", "when", "time",
    "all",   "there", "into",  "school", "during", "may",   "years", "more",  "most", "only",
    "over",  "city",  "some",  "world",  "would",  "where", "later", "up",    "such", "used",
    "many",  "can",   "state", "about"};
constexpr uint32_t kNumWords = sizeof(kWords) / sizeof(kWords[0]);

LoadClock::duration ToClock(absl::Duration duration) {
  return std::chrono::nanoseconds(absl::ToInt64Nanoseconds(duration));
}

}  // namespace

InputMaker::InputMaker(const Workload& workload, uint32_t vocabulary_size, uint64_t seed,
                       std::shared_ptr<const std::vector<std::string>> lines)
    : text_(workload.text),
      lines_(std::move(lines)),
      random_(seed),
      length_(workload.min_tokens, workload.max_tokens),
      id_(0, (workload.text ? kNumWords : vocabulary_size) - 1) {
  std::mt19937_64 always_the_same(workload.shared_tokens);
  for (int i = 0; i < workload.shared_tokens; ++i) shared_.push_back(id_(always_the_same));
}

void InputMaker::Make(v1::Input* input) {
  if (text_ && lines_ != nullptr && !lines_->empty()) {
    input->set_text((*lines_)[random_() % lines_->size()]);
    return;
  }
  const int length = length_(random_);
  std::vector<uint32_t> ids = shared_;
  while (static_cast<int>(ids.size()) < length) ids.push_back(id_(random_));
  if (text_) {
    input->set_text(absl::StrJoin(
        ids, " ", [](std::string* out, uint32_t id) { absl::StrAppend(out, kWords[id]); }));
  } else {
    input->mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  }
}

absl::StatusOr<std::vector<LoadResult>> RunLoad(const LoadOptions& options,
                                                const v1::ModelInfo& info,
                                                const std::vector<Workload>& workloads) {
  for (const Workload& workload : workloads) {
    if (workload.max_tokens > static_cast<int64_t>(info.limits().max_input_tokens())) {
      return absl::InvalidArgumentError(absl::StrCat(workload.name, ": tokens: must be at most ",
                                                     info.limits().max_input_tokens(), ", is ",
                                                     workload.max_tokens));
    }
  }
  std::vector<std::unique_ptr<v1::EmbedService::Stub>> stubs;
  std::vector<v1::EmbedService::Stub*> shared;
  const auto connect = [&]() -> absl::Status {
    const absl::StatusOr<std::shared_ptr<grpc::Channel>> channel =
        ConnectAlone(options.server, options.connection);
    if (!channel.ok()) return channel.status();
    if (!(*channel)->WaitForConnected(std::chrono::system_clock::now() + kConnectTime)) {
      return absl::UnavailableError(absl::StrCat(options.server, ": no connection"));
    }
    stubs.push_back(v1::EmbedService::NewStub(*channel));
    return absl::OkStatus();
  };
  for (int i = 0; i < options.connections; ++i) {
    if (absl::Status status = connect(); !status.ok()) return status;
    shared.push_back(stubs.back().get());
  }

  LoadSource::Plan plan;
  plan.vocabulary_size = std::max<uint32_t>(1, info.vocabulary_size());
  plan.seed = options.seed;
  plan.lines = options.lines;
  // A bulk stream has a connection of its own: what it fills is not what the others wait behind.
  for (const Workload& workload : workloads) {
    if (!workload.stream) continue;
    if (absl::Status status = connect(); !status.ok()) return status;
  }
  plan.start = LoadClock::now();
  plan.window.begin = plan.start + ToClock(options.warm_up);
  plan.window.end = plan.window.begin + ToClock(options.duration);
  std::vector<std::unique_ptr<LoadSource>> sources;
  size_t own = shared.size();
  for (const Workload& workload : workloads) {
    sources.push_back(workload.stream ? MakeStreamLoad(workload, plan, stubs[own++].get())
                                      : MakeUnaryLoad(workload, plan, shared));
    ++plan.seed;
  }
  for (auto& source : sources) source->Start();
  std::vector<LoadResult> results;
  for (auto& source : sources) {
    results.push_back(source->Finish(plan.window.end + ToClock(options.patience)));
  }
  return results;
}

}  // namespace quiver
