#include "server/embed_stream.h"

#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "engine/field_error.h"
#include "google/protobuf/arena.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "server/embed_batch.h"
#include "server/grpc_status.h"
#include "server/message_parser.h"
#include "server/observed_request.h"
#include "server/rpc_context.h"
#include "server/stream_results.h"
#include "server/wire.h"

namespace quiver {
namespace {

grpc::ByteBuffer Serialize(const v1::EmbedStreamResponse& response) {
  grpc::ByteBuffer bytes;
  bool owned = false;
  grpc::SerializationTraits<v1::EmbedStreamResponse>::Serialize(response, &bytes, &owned);
  return bytes;
}

// gRPC's reactions and the engine's results change the state, then each calls Step, which starts
// what the state allows: one write, one read, or the end. Operations are started outside the lock,
// because gRPC may run their reactions before it returns.
class EmbedStream : public ByteStreamReactor, public std::enable_shared_from_this<EmbedStream> {
 public:
  EmbedStream(const EmbedStreamOptions& options, const ServedModel* model, EmbedCalls* calls,
              RequestObserver* observer, grpc::CallbackServerContext* context)
      : options_(options),
        model_(*model),
        calls_(*calls),
        context_(*context),
        observed_(Observe(observer, Rpc::kEmbedStream, context)) {
    TellTrace(observed_, context);
  }

  void Start() {
    self_ = shared_from_this();
    Step();
  }

  // From the batches.
  void OnTokens(int tokens) {
    absl::MutexLock lock(&mutex_);
    tokens_in_flight_ += tokens;
  }
  void OnItem(StreamItem item) {
    absl::MutexLock lock(&mutex_);
    --running_;
    results_.Add(std::move(item));
    StepSoon();
  }
  void OnFed(absl::Duration tokenize) {
    absl::MutexLock lock(&mutex_);
    feeding_ = false;
    tally_.AddTokenizeTime(tokenize);
    StepSoon();
  }

 private:
  class Batch;
  enum class Write { kNothing, kHeader, kResults, kSummary, kStatus };

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override { cancellation_->Cancel(); }
  void OnDone() override {
    // A client that goes away in silence looks like one that closes its side, until now.
    const bool cancelled = code_ == absl::StatusCode::kOk && cancellation_->cancelled();
    observed_.End(cancelled ? absl::StatusCode::kCancelled : code_);
    self_.reset();
  }

  // Takes in a message: starts the stream or fails, and makes the batch to feed, null if there are
  // no inputs.
  absl::Status TakeMessage(std::shared_ptr<Batch>* batch);
  absl::Status TakeStart(const v1::EmbedStreamStart& start);

  void Step();
  Write NextWrite(std::vector<StreamItem>* items) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MayRead() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Step on another thread: the scheduler's must not serialize and send.
  void StepSoon() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteHeader();
  void WriteResults(std::vector<StreamItem> items);
  void WriteSummary();
  void End(absl::Status status);

  const EmbedStreamOptions options_;
  const ServedModel& model_;
  EmbedCalls& calls_;
  const grpc::CallbackServerContext& context_;
  ObservedRequest observed_;
  // Of the status that was sent.
  absl::StatusCode code_ = absl::StatusCode::kOk;
  const std::shared_ptr<CancellationFlag> cancellation_ = std::make_shared<CancellationFlag>();
  // Until OnDone.
  std::shared_ptr<EmbedStream> self_;

  // Of the first message, fixed from then on; used by whoever handles a message.
  Embedder* embedder_ = nullptr;
  std::shared_ptr<const RequestPlan> plan_;
  Embedder::SubmitOptions submit_;
  uint64_t items_read_ = 0;

  // Of the read and of the write under way.
  grpc::ByteBuffer read_bytes_;
  grpc::ByteBuffer write_bytes_;
  int64_t written_items_ = 0;
  int64_t written_tokens_ = 0;

  absl::Mutex mutex_;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool step_soon_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool header_due_ ABSL_GUARDED_BY(mutex_) = false;
  // A message's inputs are being tokenized and queued.
  bool feeding_ ABSL_GUARDED_BY(mutex_) = false;
  // Nothing more will be read.
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  // Results are thrown away: the stream only waits for its items to end.
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status outcome_ ABSL_GUARDED_BY(mutex_);
  // Items without a result, and items (their tokens) whose result has not been written.
  int64_t running_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t items_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t tokens_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  StreamResults results_ ABSL_GUARDED_BY(mutex_);
  StreamTally tally_ ABSL_GUARDED_BY(mutex_);
};

// The inputs of one message.
class EmbedStream::Batch : public EmbedBatch {
 public:
  // `arena` holds the message that `inputs` refer to.
  Batch(Options options, std::shared_ptr<EmbedStream> stream, uint64_t first,
        std::vector<std::string> ids, std::unique_ptr<google::protobuf::Arena> arena)
      : EmbedBatch(std::move(options), &stream->calls_.tokenizer().pool()),
        stream_(std::move(stream)),
        first_(first),
        ids_(std::move(ids)),
        tokens_(size()),
        arena_(std::move(arena)) {}

 private:
  void OnTokens(size_t index, int tokens) override {
    tokens_[index] = tokens;
    stream_->OnTokens(tokens);
  }
  void OnResult(size_t index, absl::StatusOr<Embedding> result) override {
    stream_->OnItem({.index = first_ + index,
                     .position = index,
                     .id = std::move(ids_[index]),
                     .tokens = tokens_[index],
                     .result = std::move(result)});
  }
  void OnFed() override {
    arena_.reset();
    stream_->OnFed(spent());
  }

  const std::shared_ptr<EmbedStream> stream_;
  const uint64_t first_;
  std::vector<std::string> ids_;
  std::vector<int> tokens_;
  std::unique_ptr<google::protobuf::Arena> arena_;
};

absl::Status EmbedStream::TakeStart(const v1::EmbedStreamStart& start) {
  if (absl::Status status = CheckKey(options_.api_keys, context_); !status.ok()) return status;
  absl::StatusOr<Embedder*> embedder = model_.Find(start.model());
  if (!embedder.ok()) return embedder.status();
  absl::StatusOr<ResolvedOptions> resolved =
      Resolve(**embedder, start.options(), Lane::kBulk, "start.options.");
  if (!resolved.ok()) return resolved.status();
  absl::StatusOr<std::string> tenant = Tenant(context_);
  if (!tenant.ok()) return tenant.status();
  embedder_ = *embedder;
  plan_ = std::move(resolved->plan);
  submit_ = {.lane = resolved->lane,
             .deadline = Deadline(context_),
             .cancellation = cancellation_,
             .tenant = *std::move(tenant)};
  absl::MutexLock lock(&mutex_);
  observed_.SetTenant(submit_.tenant);
  tally_.Start(submit_.lane, embedder_->info().name);
  results_.set_in_order(start.in_order());
  header_due_ = true;
  return absl::OkStatus();
}

absl::Status EmbedStream::TakeMessage(std::shared_ptr<Batch>* batch) {
  auto arena = std::make_unique<google::protobuf::Arena>();
  auto* message = google::protobuf::Arena::CreateMessage<v1::EmbedStreamRequest>(arena.get());
  InvalidStrings invalid;
  absl::Status status = ParseMessage(read_bytes_, message, &invalid);
  read_bytes_.Clear();
  if (status.ok()) status = CheckStrings(invalid);
  if (!status.ok()) return status;
  const bool first = plan_ == nullptr;
  if (first != message->has_start()) {
    return FieldError("start", first ? "must be set in the first message"
                                     : "must be set in the first message only");
  }
  // Later messages find out whether the server drains.
  status = first ? TakeStart(message->start()) : model_.Find("").status();
  if (status.ok())
    status = CheckItemCount("inputs", message->inputs_size(), options_.max_items_per_message);
  if (!status.ok() || message->inputs().empty()) return status;

  std::vector<std::string> ids(static_cast<size_t>(message->inputs_size()));
  for (size_t i = 0; i < ids.size(); ++i) SetId(message->inputs(static_cast<int>(i)), &ids[i]);
  *batch = std::make_shared<Batch>(
      TokenizeJob::Options{
          .embedder = embedder_,
          .plan = plan_,
          .inputs = ToCallInputs(message->inputs(), invalid, embedder_->info().vocabulary_size),
          .submit = submit_},
      shared_from_this(), items_read_, std::move(ids), std::move(arena));
  items_read_ += (*batch)->size();
  return absl::OkStatus();
}

void EmbedStream::OnReadDone(bool ok) {
  std::shared_ptr<Batch> batch;
  absl::Status status;
  if (ok) {
    try {
      status = TakeMessage(&batch);
    } catch (const std::exception& e) {
      status = absl::InternalError(e.what());
    }
  } else if (plan_ == nullptr) {
    status = FieldError("start", "must be set in the first message; there was no message");
  }
  {
    absl::MutexLock lock(&mutex_);
    reading_ = false;
    closed_ |= !ok || !status.ok();
    outcome_.Update(status);
    // Of a server that drains, what was accepted is still answered; of a client that breaks the
    // protocol nothing is wanted any more.
    broken_ |= !status.ok() && !absl::IsUnavailable(status);
    if (broken_) cancellation_->Cancel();
    if (batch != nullptr) {
      feeding_ = true;
      const auto items = static_cast<int64_t>(batch->size());
      running_ += items;
      items_in_flight_ += items;
    }
  }
  if (batch != nullptr) calls_.tokenizer().Start(std::move(batch));
  Step();
}

void EmbedStream::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    items_in_flight_ -= written_items_;
    tokens_in_flight_ -= written_tokens_;
    if (!ok) {
      broken_ = true;
      cancellation_->Cancel();
    }
  }
  Step();
}

void EmbedStream::StepSoon() {
  // The end of a write steps too.
  if (step_soon_ || (writing_ && !MayRead())) return;
  step_soon_ = true;
  calls_.replies().Add(Lane::kBulk, [self = shared_from_this()] {
    {
      absl::MutexLock lock(&self->mutex_);
      self->step_soon_ = false;
    }
    self->Step();
    return WorkPool::kFinished;
  });
}

EmbedStream::Write EmbedStream::NextWrite(std::vector<StreamItem>* items) {
  if (writing_ || ended_) return Write::kNothing;
  broken_ |= cancellation_->cancelled();
  const bool idle = !reading_ && !feeding_ && running_ == 0;
  if (broken_) {
    results_.Clear();
    return idle ? Write::kStatus : Write::kNothing;
  }
  if (header_due_) return Write::kHeader;
  if (!results_.empty()) {
    *items = results_.Take();
    return Write::kResults;
  }
  if (!closed_ || !idle || items_in_flight_ > 0) return Write::kNothing;
  return outcome_.ok() ? Write::kSummary : Write::kStatus;
}

bool EmbedStream::MayRead() const {
  return !reading_ && !feeding_ && !closed_ && !broken_ && !ended_ &&
         items_in_flight_ < options_.max_items_in_flight &&
         tokens_in_flight_ < options_.max_tokens_in_flight;
}

void EmbedStream::Step() {
  Write write;
  bool read = false;
  std::vector<StreamItem> items;
  absl::Status outcome;
  {
    absl::MutexLock lock(&mutex_);
    write = NextWrite(&items);
    if (write == Write::kHeader) header_due_ = false;
    if (write == Write::kSummary || write == Write::kStatus) {
      ended_ = true;
      outcome = outcome_;
    }
    writing_ |= write != Write::kNothing;
    read = MayRead();
    reading_ |= read;
  }
  if (read) StartRead(&read_bytes_);
  switch (write) {
    case Write::kNothing:
      return;
    case Write::kHeader:
      return WriteHeader();
    case Write::kResults:
      return WriteResults(std::move(items));
    case Write::kSummary:
      return WriteSummary();
    case Write::kStatus:
      return End(std::move(outcome));
  }
}

void EmbedStream::WriteHeader() {
  v1::EmbedStreamResponse response;
  response.mutable_limits()->set_max_items_in_flight(
      static_cast<uint32_t>(options_.max_items_in_flight));
  response.mutable_limits()->set_max_tokens_in_flight(
      static_cast<uint64_t>(options_.max_tokens_in_flight));
  SetVectorSpace(*plan_, response.mutable_vector_space());
  written_items_ = 0;
  written_tokens_ = 0;
  write_bytes_ = Serialize(response);
  StartWrite(&write_bytes_);
}

void EmbedStream::WriteResults(std::vector<StreamItem> items) {
  google::protobuf::Arena arena;
  auto* response = google::protobuf::Arena::CreateMessage<v1::EmbedStreamResponse>(&arena);
  written_items_ = static_cast<int64_t>(items.size());
  written_tokens_ = 0;
  {
    absl::MutexLock lock(&mutex_);
    for (const StreamItem& item : items) tally_.Add(item);
    observed_.SetReport(tally_.report());
  }
  for (StreamItem& item : items) {
    written_tokens_ += item.tokens;
    v1::EmbedResult& result = *response->add_results();
    result.set_index(item.index);
    result.set_id(std::move(item.id));
    SetOutcome(std::move(item.result), plan_->output, item.position, &result);
  }
  write_bytes_ = Serialize(*response);
  StartWrite(&write_bytes_);
}

void EmbedStream::WriteSummary() {
  v1::EmbedStreamResponse response;
  {
    absl::MutexLock lock(&mutex_);
    tally_.Fill(response.mutable_summary());
    observed_.SetReport(tally_.report());
  }
  write_bytes_ = Serialize(response);
  StartWriteAndFinish(&write_bytes_, grpc::WriteOptions(), grpc::Status::OK);
}

void EmbedStream::End(absl::Status status) {
  if (status.ok()) {
    status = absl::Now() >= Deadline(context_)
                 ? absl::DeadlineExceededError("the stream's deadline has passed")
                 : absl::CancelledError("the client went away");
  }
  {
    absl::MutexLock lock(&mutex_);
    observed_.SetReport(tally_.report());
  }
  code_ = status.code();
  Finish(ToGrpcStatus(status));
}

}  // namespace

ByteStreamReactor* StartEmbedStream(const EmbedStreamOptions& options, const ServedModel* model,
                                    EmbedCalls* calls, RequestObserver* observer,
                                    grpc::CallbackServerContext* context) {
  auto stream = std::make_shared<EmbedStream>(options, model, calls, observer, context);
  stream->Start();
  return stream.get();
}

}  // namespace quiver
