#include "tools/quiver/embed_stream.h"

#include <thread>
#include <utility>

#include "tools/quiver/rpc_status.h"
#include "tools/quiver/wire.h"

namespace quiver {

absl::Status EmbedStream::Run(int dimensions, InputSource* source, EmbeddingSink* sink) {
  if (absl::Status begun = sink->Begin(dimensions); !begun.ok()) return begun;
  std::thread writer([&] { Write(source); });
  std::thread reader([&] { Read(source); });
  const absl::Status status = window_.PutAll(sink);
  if (!status.ok()) {
    // Nobody waits for the rest.
    window_.Close(status);
    source->Interrupt();
    stream_->Cancel();
  }
  writer.join();
  reader.join();
  return status;
}

void EmbedStream::Write(InputSource* source) {
  InputItem item;
  while (source->Next(&item)) {
    const uint64_t index = item.index;
    absl::StatusOr<std::string> text = std::move(item.text);
    if (!window_.Add(std::move(item), text.ok() ? text->size() : 0)) break;
    if (!text.ok()) {
      window_.Complete(index, text.status());
    } else if (!stream_->Write(*std::move(text), index)) {
      break;
    }
  }
  stream_->WritesDone();
}

void EmbedStream::Read(InputSource* source) {
  client::StreamResult result;
  while (stream_->Read(&result)) {
    window_.Complete(result.key, FromClient(std::move(result.embedding)));
  }
  const absl::Status status = FromClientStatus(stream_->Finish());
  if (status.ok()) {
    window_.Close(source->status());
    return;
  }
  // The one that the stream had no room for, at most.
  window_.Fail(status, status);
  source->Interrupt();
}

}  // namespace quiver
