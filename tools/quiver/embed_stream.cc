#include "tools/quiver/embed_stream.h"

#include <string>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tools/quiver/rpc_status.h"

namespace quiver {

EmbedStream::EmbedStream(v1::EmbedService::Stub* stub, const v1::Limits& limits)
    : stub_(stub), budget_(limits) {}

absl::Status EmbedStream::Start(const WorkOptions& options) {
  if (options.deadline != absl::InfiniteFuture()) {
    context_.set_deadline(absl::ToChronoTime(options.deadline));
  }
  stream_ = stub_->EmbedStream(&context_);
  v1::EmbedStreamRequest start;
  *start.mutable_start()->mutable_options() = ToWire(options);
  v1::EmbedStreamResponse accepted;
  if (stream_->Write(start) && stream_->Read(&accepted)) return absl::OkStatus();
  const grpc::Status status = stream_->Finish();
  if (status.ok()) return absl::InternalError("the server ended the stream at once");
  return FromGrpcStatus(status);
}

absl::Status EmbedStream::Run(int dimensions, InputSource* source, EmbeddingSink* sink) {
  if (absl::Status begun = sink->Begin(dimensions); !begun.ok()) {
    context_.TryCancel();
    stream_->Finish();
    return begun;
  }
  std::thread writer([&] { Write(source); });
  std::thread reader([&] { Read(source); });
  const absl::Status status = window_.PutAll(sink);
  if (!status.ok()) {
    // Nobody waits for the rest.
    window_.Close(status);
    source->Interrupt();
    context_.TryCancel();
  }
  writer.join();
  reader.join();
  return status;
}

void EmbedStream::Write(InputSource* source) {
  Outgoing outgoing;
  InputItem item;
  for (;;) {
    // An idle pipe must not hold back what is at hand.
    if (source->WouldWait() && !Send(&outgoing)) return;
    if (!source->Next(&item)) break;
    if (!Add(std::move(item), &outgoing)) return;
  }
  if (!Send(&outgoing)) return;
  all_written_ = true;
  stream_->WritesDone();
}

bool EmbedStream::Add(InputItem&& item, Outgoing* outgoing) {
  const uint64_t index = item.index;
  absl::StatusOr<std::string> text = std::move(item.text);
  const size_t bytes = text.ok() ? text->size() : 0;
  // Neither may a full window, which waits for the results of what is at hand.
  if (!window_.HasRoom(bytes) ||
      budget_.Full(outgoing->message.inputs_size(), outgoing->text_bytes, bytes)) {
    if (!Send(outgoing)) return false;
  }
  if (!window_.Add(std::move(item), bytes)) return false;
  absl::Status status = text.status();
  if (status.ok()) status = budget_.Check(bytes);
  if (!status.ok()) {
    window_.Complete(index, status);
    return true;
  }
  v1::Input* input = outgoing->message.add_inputs();
  // The server counts what it got, which is not every item.
  input->set_id(absl::StrCat(index));
  input->set_text(*std::move(text));
  outgoing->text_bytes += bytes;
  return true;
}

bool EmbedStream::Send(Outgoing* outgoing) {
  if (outgoing->message.inputs().empty()) return true;
  const bool sent = stream_->Write(outgoing->message);
  outgoing->message.clear_inputs();
  outgoing->text_bytes = 0;
  return sent;
}

void EmbedStream::Read(InputSource* source) {
  v1::EmbedStreamResponse response;
  while (stream_->Read(&response)) {
    for (v1::EmbedResult& result : *response.mutable_results()) {
      uint64_t index = 0;
      if (absl::SimpleAtoi(result.id(), &index))
        window_.Complete(index, FromWire(std::move(result)));
    }
  }
  absl::Status status = FromGrpcStatus(stream_->Finish());
  if (status.ok() && !all_written_) {
    status = absl::InternalError("the server ended the stream before the end of the input");
  }
  if (status.ok()) {
    window_.Fail(source->status(), absl::InternalError("the server sent no result for this input"));
  } else {
    window_.Fail(status, status);
    source->Interrupt();
  }
}

}  // namespace quiver
