#include "tools/quiver/local_executor.h"

#include <limits>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/model/model_config.h"
#include "engine/planner.h"
#include "tools/quiver/describe_model.h"
#include "tools/quiver/find_model.h"
#include "tools/quiver/result_window.h"

namespace quiver {
namespace {

// Reads, tokenizes and submits until `source` or `window` ends.
absl::Status Feed(Embedder* embedder, const RequestPlan& plan, const WorkOptions& options,
                  std::shared_ptr<const CancellationFlag> cancellation, InputSource* source,
                  const std::shared_ptr<ResultWindow>& window) {
  InputItem item;
  while (source->Next(&item)) {
    const uint64_t index = item.index;
    const absl::StatusOr<std::string> text = std::move(item.text);
    const size_t bytes = text.ok() ? text->size() : 0;
    if (!window->Add(std::move(item), bytes)) break;
    absl::StatusOr<TokenizedInput> input =
        text.ok() ? embedder->Tokenize(plan, absl::string_view(*text)) : text.status();
    if (!input.ok()) {
      window->Complete(index, input.status());
      continue;
    }
    const absl::Status submitted =
        embedder->Submit(plan, *std::move(input),
                         {.lane = options.lane,
                          .deadline = options.deadline,
                          .cancellation = cancellation,
                          .tenant = ""},
                         [window, index](absl::StatusOr<Embedding> result) {
                           window->Complete(index, std::move(result));
                         });
    if (!submitted.ok()) window->Complete(index, submitted);
  }
  return source->status();
}

}  // namespace

absl::StatusOr<v1::ModelInfo> LocalExecutor::Describe() {
  const absl::StatusOr<ResolvedModel> model = FindModel(options_.model);
  if (!model.ok()) return model.status();
  return DescribeModel(*model, options_.fingerprint);
}

absl::Status LocalExecutor::Embed(const WorkOptions& options, InputSource* source,
                                  EmbeddingSink* sink) {
  absl::StatusOr<ResolvedModel> model = FindModel(options_.model);
  if (!model.ok()) return model.status();
  Embedder::Options engine;
  engine.model_dir = std::move(model->dir);
  engine.num_threads = options_.num_threads;
  engine.device = options_.device;
  engine.quantization = options_.quantization;
  engine.cuda = options_.cuda;
  // The window bounds what is under way; the queue must not refuse any of it.
  engine.scheduler.max_queued_tokens = std::numeric_limits<int64_t>::max() / 4;
  engine.scheduler.max_queued_tasks = std::numeric_limits<int64_t>::max() / 4;
  absl::StatusOr<std::unique_ptr<Embedder>> embedder = Embedder::Create(std::move(engine), nullptr);
  if (!embedder.ok()) return embedder.status();
  absl::StatusOr<RequestPlan> plan = (*embedder)->Plan(options.request);
  if (!plan.ok()) return plan.status();
  if (absl::Status begun = sink->Begin(plan->output.dimensions); !begun.ok()) return begun;

  source->StopAt(options.deadline);
  const auto cancellation = std::make_shared<CancellationFlag>();
  const auto window = std::make_shared<ResultWindow>();
  std::thread feeder(
      [&] { window->Close(Feed(embedder->get(), *plan, options, cancellation, source, window)); });
  const absl::Status status = window->PutAll(sink);
  if (!status.ok()) {
    // Nobody waits for the rest.
    cancellation->Cancel();
    window->Close(status);
    source->Interrupt();
  }
  feeder.join();
  return status;
}

absl::Status LocalExecutor::Tokenize(const WorkOptions& options, InputSource* source,
                                     TokenSink* sink) {
  const absl::StatusOr<ResolvedModel> model = FindModel(options_.model);
  if (!model.ok()) return model.status();
  absl::StatusOr<ModelConfig> config = LoadModelConfig(model->dir);
  if (!config.ok()) return config.status();
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      Tokenizer::Load(absl::StrCat(model->dir, "/tokenizer.json"));
  if (!tokenizer.ok()) return tokenizer.status();
  const InputBuilder::Limits limits = {.max_tokens = config->default_max_tokens,
                                       .max_text_bytes = MaxTextBytes(config->default_max_tokens),
                                       .vocabulary_size = config->vocab_size};
  absl::StatusOr<Planner> planner = Planner::Create(*config, std::nullopt, std::nullopt,
                                                    Truncation::kNone, limits.max_text_bytes, "");
  if (!planner.ok()) return planner.status();
  absl::StatusOr<RequestPlan> plan = planner->Plan(options.request);
  if (!plan.ok()) return plan.status();
  if (absl::Status begun = sink->Begin(0); !begun.ok()) return begun;

  source->StopAt(options.deadline);
  const InputBuilder builder(tokenizer->get(), limits);
  InputItem item;
  while (source->Next(&item)) {
    absl::StatusOr<TokenizedInput> result =
        item.text.ok() ? builder.FromText(plan->prompt, *item.text, plan->truncation)
                       : item.text.status();
    if (absl::Status put = sink->Put(item, result); !put.ok()) return put;
    if (source->WouldWait()) {
      if (absl::Status flushed = sink->Flush(); !flushed.ok()) return flushed;
    }
  }
  return source->status();
}

}  // namespace quiver
