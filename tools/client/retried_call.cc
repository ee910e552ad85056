#include "tools/client/retried_call.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tools/client/rpc_status.h"

namespace quiver::client {
namespace {

absl::Status WithMessage(const absl::Status& status, absl::string_view message) {
  absl::Status out(status.code(), message);
  status.ForEachPayload(
      [&](absl::string_view type, const absl::Cord& payload) { out.SetPayload(type, payload); });
  return out;
}

// With " (NOTE)" behind its message.
absl::Status Annotate(const absl::Status& status, absl::string_view note) {
  return WithMessage(status, absl::StrCat(status.message(), " (", note, ")"));
}

}  // namespace

absl::Status Named(const Server& server, const absl::Status& status) {
  if (!absl::IsUnavailable(status)) return status;
  return WithMessage(status, absl::StrCat(server.address.target, ": ", status.message()));
}

RetriedCall::RetriedCall(Core* core, std::shared_ptr<const UnaryRequest> request, int64_t tokens,
                         absl::Time deadline, Tries* tries, Done done)
    : core_(*core),
      request_(std::move(request)),
      tokens_(tokens),
      deadline_(deadline),
      tries_(*tries),
      done_(std::move(done)) {}

void RetriedCall::Start() {
  if (tries_.count > 0) {
    Again();
  } else if (absl::Now() >= deadline_) {
    Finish(absl::DeadlineExceededError("the deadline passed before the request could be sent"),
           nullptr);
  } else {
    Send(core_.servers().First());
  }
}

void RetriedCall::Again() {
  if (tries_.count >= core_.options().retry.max_tries) {
    Finish(tries_.count > 1 ? Annotate(tries_.last, absl::StrCat("after ", tries_.count, " tries"))
                            : tries_.last,
           nullptr);
    return;
  }
  const absl::Time now = absl::Now();
  ServerSet::Choice choice = core_.servers().Next(tries_.not_before, now);
  if (choice.when >= deadline_) {
    Finish(Annotate(tries_.last, "the deadline leaves no time for another try"), nullptr);
  } else if (choice.when > now) {
    timer_ = core_.loop().PostAt(choice.when, [self = shared_from_this()] {
      if (!self->finished_) self->Again();
    });
  } else {
    Send(std::move(choice.server));
  }
}

void RetriedCall::Send(std::shared_ptr<Server> server) {
  ++tries_.count;
  ++open_;
  const size_t attempt = attempts_.size();
  attempts_.push_back({server, nullptr});
  attempts_[attempt].call =
      core_.Start(server, request_, deadline_, tokens_,
                  [self = shared_from_this(), attempt](absl::StatusOr<UnaryReply> reply) {
                    self->OnAnswer(attempt, std::move(reply));
                  });
  if (open_ > 1 || core_.options().hedge_after == absl::InfiniteDuration()) return;
  timer_ = core_.loop().PostAt(absl::Now() + core_.options().hedge_after,
                               [self = shared_from_this(), attempt] {
                                 if (self->attempts_[attempt].call != nullptr) self->Hedge();
                               });
}

void RetriedCall::Hedge() {
  if (finished_ || open_ != 1 || tries_.count >= core_.options().retry.max_tries) return;
  std::shared_ptr<Server> other = core_.servers().Hedge(attempts_.back().server.get(), absl::Now());
  if (other != nullptr) Send(std::move(other));
}

void RetriedCall::OnAnswer(size_t attempt, absl::StatusOr<UnaryReply> reply) {
  attempts_[attempt].call.reset();
  --open_;
  if (finished_) return;
  const std::shared_ptr<Server> server = attempts_[attempt].server;
  if (reply.ok() || !Retryable(reply.status())) {
    if (reply.ok()) core_.servers().Answered(server.get());
    if (absl::IsDeadlineExceeded(reply.status()) && !tries_.last.ok()) {
      reply = Annotate(reply.status(), absl::StrCat("the try before: ", tries_.last.message()));
    }
    Finish(std::move(reply), server);
    return;
  }
  tries_.last = Named(*server, reply.status());
  tries_.not_before[server.get()] =
      core_.servers().Failed(server.get(), tries_.count, reply.status(), absl::Now());
  // A hedge that is still under way may yet be the answer.
  if (open_ > 0) return;
  core_.loop().Cancel(timer_);
  Again();
}

void RetriedCall::Finish(absl::StatusOr<UnaryReply> reply, std::shared_ptr<Server> server) {
  Stop();
  Done done = std::move(done_);
  done(std::move(reply), std::move(server));
}

void RetriedCall::Stop() {
  finished_ = true;
  core_.loop().Cancel(timer_);
  for (const Attempt& attempt : attempts_) {
    if (attempt.call != nullptr) attempt.call->Cancel();
  }
}

void RetriedCall::Cancel() {
  if (!finished_) Stop();
  done_ = nullptr;
}

std::shared_ptr<RetriedCall> FetchInfo(Core* core, absl::Time deadline, Tries* tries,
                                       absl::AnyInvocable<void(const absl::Status&)> done) {
  if (core->info().has_value()) {
    done(absl::OkStatus());
    return nullptr;
  }
  auto call = std::make_shared<RetriedCall>(
      core, std::make_shared<UnaryRequest>(v1::GetModelInfoRequest()), 0, deadline, tries,
      [core, done = std::move(done)](absl::StatusOr<UnaryReply> reply,
                                     const std::shared_ptr<Server>&) mutable {
        if (reply.ok()) core->set_info(std::get<v1::ModelInfo>(*std::move(reply)));
        done(reply.status());
      });
  call->Start();
  return call;
}

}  // namespace quiver::client
