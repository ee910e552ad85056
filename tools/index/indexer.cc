#include "tools/index/indexer.h"

#include <algorithm>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "engine/field_error.h"

namespace quiver::index {
namespace {

constexpr absl::Duration kProgressInterval = absl::Milliseconds(100);

// Whether another try, later or elsewhere, may do better: no reason to give an input up.
bool MayPass(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kAborted:
      return true;
    default:
      return false;
  }
}

Rejected RejectOf(const PendingRow& row, const absl::Status& status) {
  std::string field = ErrorField(status);
  absl::string_view reason = status.message();
  if (field.empty()) {
    // The server's errors name it at the beginning.
    field = client::ErrorField(status);
    if (!field.empty() && absl::ConsumePrefix(&reason, field)) absl::ConsumePrefix(&reason, ": ");
  }
  return {.id = row.id,
          .chunk = row.chunk,
          .place = row.place,
          .field = std::move(field),
          .code = absl::StatusCodeToString(status.code()),
          .reason = std::string(reason)};
}

}  // namespace

Indexer::Indexer(IndexerOptions options, std::unique_ptr<client::EmbedStream> stream,
                 DocumentSource* source, IndexSink* sink, size_t vector_bytes)
    : options_(std::move(options)),
      stream_(std::move(stream)),
      source_(*source),
      sink_(*sink),
      window_({}, vector_bytes) {}

absl::Status Indexer::Run(const Checkpoint& start, const OnProgress& on_progress) {
  progress_.done = put_ = start;
  committed_documents_ = start.documents;
  last_commit_ = absl::Now();
  std::thread writer([&] { WriteInputs(start.documents); });
  std::thread reader([&] { ReadResults(); });
  absl::Status status = Drain(on_progress);
  if (!status.ok()) {
    // Nobody waits for the rest.
    window_.Close(status);
    source_.Interrupt();
    stream_->Cancel();
  }
  writer.join();
  reader.join();
  if (!status.ok()) return status;
  put_.documents = documents_read_;
  if (status = Commit(); !status.ok()) return status;
  return sink_.Finish();
}

void Indexer::WriteInputs(uint64_t documents_done) {
  uint64_t documents = 0;
  Document document;
  for (;; ++documents) {
    if (documents < documents_done || documents % options_.shard.count != options_.shard.index) {
      if (!source_.Skip()) break;
      documents_read_ = documents + 1;
      continue;
    }
    if (!source_.Next(&document)) break;
    documents_read_ = documents + 1;
    if (!AddDocument(std::move(document), documents + 1)) break;
  }
  documents_read_ = documents;
  absl::Status status = source_.status();
  if (status.ok() && documents < documents_done) {
    status = absl::DataLossError(
        absl::StrCat("the input has ", documents, " documents; ", documents_done, " were done"));
  }
  if (!status.ok()) {
    window_.Close(status);
    stream_->Cancel();
  }
  stream_->WritesDone();
}

bool Indexer::AddDocument(Document document, uint64_t documents) {
  PendingRow row = {.id = std::move(document.id), .place = std::move(document.place)};
  if (!document.text.ok()) {
    row.documents = documents;
    row.result = document.text.status();
    return AddRow(std::move(row));
  }
  const std::string text = *std::move(document.text);
  std::vector<Chunk> chunks = {{0, text.size()}};
  if (options_.chunks.max_tokens > 0) {
    chunks = CutIntoChunks(text, options_.chunks, options_.count_tokens);
  }
  // Of blanks alone: the server says what is wrong with them.
  if (chunks.empty()) chunks = {{0, text.size()}};
  for (size_t i = 0; i < chunks.size(); ++i) {
    PendingRow part = row;
    part.chunk = static_cast<uint32_t>(i);
    part.begin = chunks[i].begin;
    part.end = chunks[i].end;
    part.text = text.substr(chunks[i].begin, chunks[i].end - chunks[i].begin);
    part.documents = i + 1 == chunks.size() ? documents : 0;
    if (!AddRow(std::move(part))) return false;
  }
  return true;
}

bool Indexer::AddRow(PendingRow row) {
  const bool complete = row.result.has_value();
  std::string text = row.text;
  const std::optional<uint64_t> number = window_.Add(std::move(row));
  if (!number.has_value()) return false;
  return complete || stream_->Write(std::move(text), *number);
}

void Indexer::ReadResults() {
  client::StreamResult result;
  while (stream_->Read(&result)) {
    const absl::Status status = result.embedding.status();
    if (result.stream_failed || (!status.ok() && MayPass(status))) {
      window_.Close(status);
      source_.Interrupt();
      stream_->Cancel();
    } else {
      window_.Complete(result.key, std::move(result.embedding));
    }
  }
  const absl::Status status = stream_->Finish();
  window_.Close(status);
  if (!status.ok()) source_.Interrupt();
}

absl::Status Indexer::Drain(const OnProgress& on_progress) {
  // Rows of a document wait here for its last one, as checkpoints lie between documents.
  std::vector<PendingRow> rows;
  while (window_.Take(&rows, kProgressInterval)) {
    size_t whole = rows.size();
    while (whole > 0 && rows[whole - 1].documents == 0) --whole;
    for (size_t i = 0; i < whole; ++i) {
      if (absl::Status status = Put(rows[i]); !status.ok()) return status;
    }
    rows.erase(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(whole));
    if (absl::Now() - last_commit_ >= options_.commit_interval &&
        put_.documents != committed_documents_) {
      if (absl::Status status = Commit(); !status.ok()) return status;
    }
    progress_.part = source_.progress();
    if (progress_.part > 0) {
      // Much may have been read that is not done.
      const auto read = static_cast<double>(std::max<uint64_t>(documents_read_, 1));
      progress_.part *= static_cast<double>(put_.documents) / read;
    }
    on_progress(progress_);
  }
  const absl::Status status = window_.status();
  if (status.ok()) return status;
  // What came before the error stays.
  const absl::Status committed = Commit();
  return committed.ok() ? status : committed;
}

absl::Status Indexer::Put(const PendingRow& row) {
  absl::Status status;
  if (row.result->ok()) {
    const client::Embedding& embedding = **row.result;
    status = sink_.Append({.id = row.id,
                           .chunk = row.chunk,
                           .begin = row.begin,
                           .end = row.end,
                           .text = row.text,
                           .embedding = &embedding});
    ++put_.rows;
    ++progress_.new_rows;
    progress_.new_tokens += static_cast<uint64_t>(embedding.token_count);
  } else {
    status = sink_.Reject(RejectOf(row, row.result->status()));
    ++put_.rejects;
  }
  if (row.documents > 0) put_.documents = row.documents;
  progress_.done = put_;
  return status;
}

absl::Status Indexer::Commit() {
  last_commit_ = absl::Now();
  committed_documents_ = put_.documents;
  return sink_.Commit(put_);
}

}  // namespace quiver::index
