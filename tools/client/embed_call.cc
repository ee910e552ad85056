#include "tools/client/embed_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tools/client/rpc_status.h"
#include "tools/client/wire.h"

namespace quiver::client {
namespace {

// Requests of one call that a server has at a time: one that it computes, and some that are there
// when it is done. More would only fill its queue.
constexpr size_t kPartsPerServer = 4;

}  // namespace

EmbedCall::EmbedCall(Core* core, std::vector<Input> inputs, EmbedOptions options,
                     absl::Time deadline, Client::EmbedDone done)
    : core_(*core),
      inputs_(std::move(inputs)),
      options_(std::move(options)),
      deadline_(deadline),
      done_(std::move(done)),
      results_(inputs_.size()) {}

void EmbedCall::Start(const Cancellation* cancellation) {
  const std::shared_ptr<EmbedCall> self = shared_from_this();
  const auto cancel = [self] { self->End(absl::CancelledError("the call was cancelled")); };
  id_ = core_.Begin(cancel);
  if (cancellation != nullptr) unwatch_ = core_.Watch(*cancellation, cancel);
  if (inputs_.empty()) {
    End(FieldError("inputs", "must not be empty"));
    return;
  }
  info_call_ = FetchInfo(&core_, deadline_, &info_tries_, [self](const absl::Status& status) {
    status.ok() ? self->Split(*self->core_.info()) : self->End(status);
  });
}

void EmbedCall::Split(const v1::ModelInfo& info) {
  const MessageBudget budget(info.limits());
  size_t bytes = 0;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const size_t next = ContentBytes(inputs_[i]);
    if (absl::Status fits = budget.Check(next); !fits.ok()) {
      results_[i] = std::move(fits);
      any_result_ = true;
      continue;
    }
    if (parts_.empty() || budget.Full(parts_.back().positions.size(), bytes, next)) {
      parts_.emplace_back();
      bytes = 0;
    }
    parts_.back().positions.push_back(i);
    bytes += next;
  }
  Feed();
}

void EmbedCall::Feed() {
  // A part may end while it is sent, and its end come here.
  if (feeding_) return;
  feeding_ = true;
  const size_t room = kPartsPerServer * core_.servers().all().size();
  while (!ended_ && next_part_ < parts_.size() && static_cast<size_t>(open_parts_) < room) {
    ++open_parts_;
    Send(&parts_[next_part_++]);
  }
  feeding_ = false;
  if (!ended_ && open_parts_ == 0) Complete();
}

void EmbedCall::Send(Part* part) {
  auto message = std::make_shared<UnaryRequest>();
  auto& request = message->emplace<v1::EmbedRequest>();
  request.set_model(options_.model);
  *request.mutable_options() = ToWire(options_);
  int64_t tokens = 0;
  for (const size_t position : part->positions) {
    ToWire(inputs_[position], request.add_inputs());
    tokens += EstimateTokens(inputs_[position]);
  }
  part->call = std::make_shared<RetriedCall>(
      &core_, std::move(message), tokens, deadline_, &part->tries,
      [self = shared_from_this(), part](absl::StatusOr<UnaryReply> reply,
                                        const std::shared_ptr<Server>& server) {
        self->OnReply(part, std::move(reply), server);
      });
  // It may end at once, and its end replace it.
  const std::shared_ptr<RetriedCall> call = part->call;
  call->Start();
}

void EmbedCall::OnReply(Part* part, absl::StatusOr<UnaryReply> reply,
                        const std::shared_ptr<Server>& server) {
  if (reply.ok()) {
    Take(part, std::get<v1::EmbedResponse>(*std::move(reply)), server);
    if (ended_) return;
    if (!part->positions.empty() && part->tries.count < core_.options().retry.max_tries) {
      Send(part);
      return;
    }
  }
  if (!part->positions.empty()) {
    // Refused one by one to the last, or their request failed.
    const absl::Status failure = reply.ok() ? part->tries.last : reply.status();
    any_result_ |= reply.ok();
    if (!reply.ok()) first_failure_.Update(failure);
    for (const size_t position : part->positions) results_[position] = failure;
  }
  --open_parts_;
  Feed();
}

void EmbedCall::Take(Part* part, v1::EmbedResponse response,
                     const std::shared_ptr<Server>& server) {
  if (!reply_.has_value()) {
    reply_.emplace();
    reply_->space = FromWire(response.vector_space());
    reply_->model = response.model();
  } else if (absl::Status same = CheckSameSpace(reply_->space, response.vector_space());
             !same.ok()) {
    End(std::move(same));
    return;
  }
  if (static_cast<size_t>(response.results_size()) != part->positions.size()) {
    End(absl::InternalError(absl::StrCat("the server sent ", response.results_size(),
                                         " results for ", part->positions.size(), " inputs")));
    return;
  }
  std::vector<size_t> again;
  for (size_t i = 0; i < part->positions.size(); ++i) {
    absl::StatusOr<Embedding> result =
        FromWire(std::move(*response.mutable_results(static_cast<int>(i))));
    if (!result.ok() && Retryable(result.status())) {
      part->tries.last = result.status();
      again.push_back(part->positions[i]);
    } else {
      any_result_ = true;
      results_[part->positions[i]] = std::move(result);
    }
  }
  part->positions = std::move(again);
  if (part->positions.empty()) return;
  part->tries.not_before[server.get()] =
      core_.servers().Failed(server.get(), part->tries.count, part->tries.last, absl::Now());
}

void EmbedCall::Complete() {
  if (!any_result_) {
    End(first_failure_);
    return;
  }
  EmbedReply reply = reply_.has_value() ? *std::move(reply_) : EmbedReply();
  for (auto& result : results_) reply.results.push_back(*std::move(result));
  End(std::move(reply));
}

void EmbedCall::End(absl::StatusOr<EmbedReply> reply) {
  if (ended_) return;
  ended_ = true;
  // Kept over the end of the calls, which hold it.
  const std::shared_ptr<EmbedCall> self = shared_from_this();
  if (info_call_ != nullptr) info_call_->Cancel();
  for (const Part& part : parts_) {
    if (part.call != nullptr) part.call->Cancel();
  }
  unwatch_();
  Client::EmbedDone done = std::move(done_);
  done(std::move(reply));
  core_.End(id_);
}

}  // namespace quiver::client
