#include "tools/index/file_sink.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace quiver::index {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

std::string StemOf(const std::string& path) {
  const size_t dot = path.rfind('.');
  const size_t slash = path.rfind('/');
  return dot == std::string::npos || (slash != std::string::npos && dot < slash)
             ? path
             : path.substr(0, dot);
}

bool Exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

absl::Status Remove(const std::string& path) {
  std::error_code error;
  fs::remove(path, error);
  return error ? absl::FailedPreconditionError(absl::StrCat(path, ": ", error.message()))
               : absl::OkStatus();
}

}  // namespace

FileSink::FileSink(Options options) : options_(std::move(options)), stem_(StemOf(options_.path)) {}

std::string FileSink::PathOf(File file) const {
  if (file == kRows) return stem_ + ".rows.jsonl";
  if (file == kScales) return stem_ + ".scales.f32";
  if (file == kRejects) return stem_ + ".rejects.jsonl";
  return options_.path;
}

bool FileSink::Has(File file) const {
  if (file == kRows) return options_.format != RowFormat::kJsonl;
  if (file == kScales) return Has(kRows) && space_.type == client::ElementType::kInt8;
  return true;
}

absl::StatusOr<IndexSink::State> FileSink::Begin(const IndexSpace& space, const RunIdentity& run) {
  space_ = space;
  const std::string journal_path = stem_ + ".journal";
  if (options_.overwrite) {
    if (absl::Status status = RemoveAll(); !status.ok()) return status;
  } else if (!Exists(journal_path)) {
    absl::StatusOr<State> state = ReadMeta(run);
    if (!state.ok() || state->complete) return state;
    for (int i = 0; i < kFileCount; ++i) {
      const std::string path = PathOf(static_cast<File>(i));
      if (Has(static_cast<File>(i)) && Exists(path)) {
        return absl::FailedPreconditionError(
            absl::StrCat(path, ": is there already (--overwrite begins anew)"));
      }
    }
  }
  bool written = false;
  for (int i = 0; i < kFileCount; ++i) {
    std::error_code absent;
    const auto size = fs::file_size(PathOf(static_cast<File>(i)), absent);
    written |= Has(static_cast<File>(i)) && !absent && size > 0;
  }
  absl::StatusOr<std::unique_ptr<Journal>> journal =
      Journal::Open(journal_path, run, /*may_begin=*/!written);
  if (!journal.ok()) return journal.status();
  journal_ = *std::move(journal);
  last_.run = run;
  if (absl::Status status = OpenFiles(space); !status.ok()) return status;
  if (!journal_->last().has_value()) return State{};
  last_ = journal_->last()->checkpoint;
  return State{.checkpoint = last_};
}

absl::StatusOr<IndexSink::State> FileSink::ReadMeta(const RunIdentity& run) const {
  const std::string path = stem_ + ".meta.json";
  if (!Exists(path)) return State{};
  std::ifstream in(path);
  const Json meta = Json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!meta.is_object() || !meta.contains("run")) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": is not of an index (--overwrite begins anew)"));
  }
  if (const std::string difference = DifferenceOfRuns(meta["run"].dump(), run);
      !difference.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, ": is of a run that was not this one: ", difference, " (--overwrite begins anew)"));
  }
  return State{.checkpoint = Checkpoint{.documents = meta.value("documents", uint64_t{0}),
                                        .rows = meta.value("rows", uint64_t{0}),
                                        .rejects = meta.value("rejects", uint64_t{0}),
                                        .run = run},
               .complete = true};
}

absl::Status FileSink::RemoveAll() const {
  if (Exists(stem_ + ".journal")) {
    const absl::StatusOr<std::unique_ptr<DurableFile>> journal =
        DurableFile::Open(stem_ + ".journal");
    if (!journal.ok()) return journal.status();
    if (absl::Status free = (*journal)->Lock(); !free.ok()) return free;
  }
  // The journal last: without it what is left would be nobody's.
  absl::Status status = Remove(stem_ + ".meta.json");
  for (int i = 0; i < kFileCount; ++i) {
    if (Has(static_cast<File>(i)) || i == kScales)
      status.Update(Remove(PathOf(static_cast<File>(i))));
  }
  status.Update(Remove(stem_ + ".journal"));
  return status;
}

absl::Status FileSink::OpenFiles(const IndexSpace& space) {
  const std::vector<uint64_t> sizes =
      journal_->last().has_value() ? journal_->last()->sizes : std::vector<uint64_t>(kFileCount, 0);
  if (sizes.size() != kFileCount) {
    return absl::DataLossError(absl::StrCat(stem_, ".journal: cannot be understood"));
  }
  for (int i = 0; i < kFileCount; ++i) {
    if (!Has(static_cast<File>(i))) continue;
    absl::StatusOr<std::unique_ptr<DurableFile>> file =
        DurableFile::Open(PathOf(static_cast<File>(i)));
    if (!file.ok()) return file.status();
    files_[i] = *std::move(file);
    if (absl::Status status = files_[i]->Truncate(sizes[static_cast<size_t>(i)]); !status.ok()) {
      return status;
    }
  }
  if (journal_->last().has_value()) return absl::OkStatus();
  absl::Status status = SyncFolderOf(options_.path);
  status.Update(files_[kVectors]->Append(FileHeader(options_.format, space, 0)));
  return status;
}

absl::Status FileSink::Append(const IndexRow& row) {
  row_.clear();
  AppendRow(options_.format, row, options_.with_text, &row_);
  absl::Status status = files_[kVectors]->Append(row_);
  if (Has(kScales)) {
    char scale[sizeof(float)];
    std::memcpy(scale, &row.embedding->scale, sizeof(scale));
    status.Update(files_[kScales]->Append({scale, sizeof(scale)}));
  }
  if (Has(kRows)) {
    row_.clear();
    AppendRowLine(row, options_.with_text, &row_);
    status.Update(files_[kRows]->Append(row_));
  }
  return status;
}

absl::Status FileSink::Reject(const Rejected& rejected) {
  std::string line = absl::StrCat(
      "{\"id\":", QuotedJson(rejected.id), ",\"chunk\":", rejected.chunk,
      ",\"place\":", QuotedJson(rejected.place), ",\"field\":", QuotedJson(rejected.field),
      ",\"code\":", QuotedJson(rejected.code), ",\"reason\":", QuotedJson(rejected.reason), "}\n");
  return files_[kRejects]->Append(line);
}

absl::Status FileSink::Commit(const Checkpoint& checkpoint) {
  if (absl::Status status = CheckRows(options_.format, checkpoint.rows); !status.ok()) {
    return status;
  }
  Journal::Entry entry = {.checkpoint = checkpoint, .sizes = {}};
  for (const auto& file : files_) {
    if (file != nullptr) {
      if (absl::Status status = file->Sync(); !status.ok()) return status;
    }
    entry.sizes.push_back(file == nullptr ? 0 : file->size());
  }
  last_ = checkpoint;
  return journal_->Add(entry);
}

absl::Status FileSink::Finish() {
  const std::string header = FileHeader(options_.format, space_, last_.rows);
  if (absl::Status status = files_[kVectors]->WriteAtStart(header); !status.ok()) return status;
  const Json meta = {{"model", space_.model},
                     {"fingerprint", space_.space.fingerprint},
                     {"prompt_fingerprint", space_.space.prompt_fingerprint},
                     {"dimensions", space_.dimensions},
                     {"type", TypeName(space_.type)},
                     {"documents", last_.documents},
                     {"rows", last_.rows},
                     {"rejects", last_.rejects},
                     {"run", Json::parse(last_.run, nullptr, /*allow_exceptions=*/false)}};
  if (absl::Status status = ReplaceFile(stem_ + ".meta.json", meta.dump(2) + "\n"); !status.ok()) {
    return status;
  }
  if (last_.rejects == 0) {
    if (absl::Status status = Remove(PathOf(kRejects)); !status.ok()) return status;
  }
  if (absl::Status status = Remove(stem_ + ".journal"); !status.ok()) return status;
  return SyncFolderOf(options_.path);
}

}  // namespace quiver::index
