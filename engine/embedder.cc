#include "engine/embedder.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/field_error.h"
#include "engine/planner.h"
#include "engine/schedule/warm_up.h"

namespace quiver {
namespace {

class EmbedderImpl : public Embedder {
 public:
  EmbedderImpl(ModelInfo info, Planner planner, std::unique_ptr<Tokenizer> tokenizer,
               std::unique_ptr<Backend> backend)
      : info_(std::move(info)),
        planner_(std::move(planner)),
        tokenizer_(std::move(tokenizer)),
        inputs_(tokenizer_.get(), {.max_tokens = info_.max_input_tokens,
                                   .max_text_bytes = info_.max_text_bytes,
                                   .vocabulary_size = info_.vocabulary_size}),
        backend_(std::move(backend)) {}

  absl::Status Start(Scheduler::Options options, SchedulerObserver* observer) {
    if (absl::Status s = WarmUp(backend_.get(), info_.vocabulary_size, &options.cost_model);
        !s.ok()) {
      return absl::Status(s.code(), absl::StrCat("the warm-up pass failed: ", s.message()));
    }
    if (absl::Status s = ListPrefixes(&options.prefixes); !s.ok()) return s;
    auto scheduler = Scheduler::Create(std::move(options), backend_.get(), observer);
    if (!scheduler.ok()) return scheduler.status();
    scheduler_ = *std::move(scheduler);
    return absl::OkStatus();
  }

  const ModelInfo& info() const override { return info_; }

  absl::StatusOr<RequestPlan> Plan(const RequestOptions& options) const override {
    return planner_.Plan(options);
  }

  absl::StatusOr<TokenizedInput> Tokenize(const RequestPlan& plan, InputRef input) const override {
    if (const auto* text = std::get_if<absl::string_view>(&input)) {
      return inputs_.FromText(plan.prompt, *text, plan.truncation);
    }
    return inputs_.FromIds(std::get<absl::Span<const TokenId>>(input), plan.truncation);
  }

  absl::Status Submit(const RequestPlan& plan, TokenizedInput&& input, SubmitOptions options,
                      DoneCallback done) override {
    EmbedTask task = MakeTask(plan, std::move(input), std::move(options), std::move(done));
    absl::Status status = scheduler_->Submit(std::move(task));
    if (!status.ok()) input.ids = std::move(task.token_ids);
    return status;
  }

  std::vector<absl::Status> SubmitMany(const RequestPlan& plan, absl::Span<Item> items,
                                       const SubmitOptions& options) override {
    std::vector<EmbedTask> tasks;
    tasks.reserve(items.size());
    for (Item& item : items) {
      tasks.push_back(MakeTask(plan, std::move(item.input), options, std::move(item.done)));
    }
    std::vector<absl::Status> out = scheduler_->SubmitMany(absl::MakeSpan(tasks));
    for (size_t i = 0; i < out.size(); ++i) {
      if (!out[i].ok()) items[i].input.ids = std::move(tasks[i].token_ids);
    }
    return out;
  }

  bool Drain(absl::Time deadline) override { return scheduler_->Drain(deadline); }

  QueueSnapshot Snapshot() const override { return scheduler_->Snapshot(); }

 private:
  // What inputs with one of the model's own prompts begin with.
  absl::Status ListPrefixes(std::vector<std::vector<TokenId>>* prefixes) const {
    for (const auto& [name, prompt] : info_.config.prompts) {
      std::vector<TokenId> ids = tokenizer_->prefix_ids();
      if (absl::Status s = tokenizer_->Encode(prompt, &ids); !s.ok()) return s;
      prefixes->push_back(std::move(ids));
    }
    return absl::OkStatus();
  }

  // Takes the ids out of `input`, and `done`.
  static EmbedTask MakeTask(const RequestPlan& plan, TokenizedInput&& input, SubmitOptions options,
                            DoneCallback done) {
    EmbedTask task;
    const int token_count = static_cast<int>(input.ids.size());
    task.token_ids = std::move(input.ids);
    task.output = plan.output;
    task.lane = options.lane;
    task.deadline = options.deadline;
    task.cancellation = std::move(options.cancellation);
    task.tenant = std::move(options.tenant);
    task.done = [done = std::move(done), token_count,
                 truncated = input.truncated](TaskResult result) mutable {
      if (!result.vector.ok()) return done(result.vector.status());
      done(Embedding{*std::move(result.vector), token_count, truncated, result.queue_time,
                     result.compute_time, result.answered, result.batch});
    };
    return task;
  }

  const ModelInfo info_;
  const Planner planner_;
  const std::unique_ptr<Tokenizer> tokenizer_;
  const InputBuilder inputs_;
  const std::unique_ptr<Backend> backend_;
  std::unique_ptr<Scheduler> scheduler_;
};

// Tokens of the longest input.
absl::StatusOr<int> InputLimit(const Embedder::Options& options, const ModelConfig& config,
                               const BackendInfo& backend) {
  if (options.max_input_tokens < 0 || options.max_input_tokens > config.max_positions) {
    return FieldError(
        "max_input_tokens",
        absl::StrCat("must be from 1 to ", config.max_positions,
                     ", the model's positions, or 0 for its default of ", config.default_max_tokens,
                     "; it is ", options.max_input_tokens));
  }
  // The default gives way to a backend that has no memory for it.
  const int limit = options.max_input_tokens > 0
                        ? options.max_input_tokens
                        : std::min(config.default_max_tokens, backend.max_sequence_tokens);
  if (options.max_batch_tokens != 0 && options.max_batch_tokens < limit) {
    return FieldError(
        "max_batch_tokens",
        absl::StrCat("must be at least ", limit, ", the tokens of the longest input, or 0; it is ",
                     options.max_batch_tokens));
  }
  if (limit > backend.max_sequence_tokens) {
    return FieldError("max_input_tokens",
                      absl::StrCat("must be at most ", backend.max_sequence_tokens,
                                   ", the backend's longest sequence; it is ", limit));
  }
  return limit;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Embedder>> Embedder::CreateWith(Options options, ModelInfo info,
                                                               std::unique_ptr<Tokenizer> tokenizer,
                                                               std::unique_ptr<Backend> backend,
                                                               SchedulerObserver* observer) {
  const ModelConfig& config = info.config;
  info.backend = backend->info();
  info.vocabulary_size = config.vocab_size;
  if (tokenizer->vocabulary_size() > config.vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("the tokenizer gives ids up to ", tokenizer->vocabulary_size() - 1,
                     ", the model's vocabulary has ", config.vocab_size));
  }
  absl::StatusOr<int> limit = InputLimit(options, config, info.backend);
  if (!limit.ok()) return limit.status();
  info.max_input_tokens = *limit;
  info.max_text_bytes = MaxTextBytes(*limit);

  absl::StatusOr<Planner> planner =
      Planner::Create(config, options.default_dimensions, options.default_prompt_name,
                      options.default_truncation, info.max_text_bytes,
                      SpaceBaseDigest(config, info.weights_fingerprint, tokenizer->fingerprint(),
                                      info.backend.arithmetic));
  if (!planner.ok()) return planner.status();
  info.default_dimensions = planner->defaults().dimensions;
  info.default_prompt_name = planner->defaults().prompt_name;
  info.default_truncation = planner->defaults().truncation;
  absl::StatusOr<RequestPlan> plan = planner->Plan({});
  if (!plan.ok()) return plan.status();
  info.space_fingerprint = plan->space_fingerprint;

  if (options.max_batch_tokens > 0) options.scheduler.max_batch_tokens = options.max_batch_tokens;
  auto embedder = std::make_unique<EmbedderImpl>(std::move(info), *std::move(planner),
                                                 std::move(tokenizer), std::move(backend));
  if (absl::Status s = embedder->Start(std::move(options.scheduler), observer); !s.ok()) return s;
  return embedder;
}

}  // namespace quiver
