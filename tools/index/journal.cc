#include "tools/index/journal.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "tools/index/index_sink.h"
#include "xxhash.h"

namespace quiver::index {
namespace {

using Json = nlohmann::json;

constexpr size_t kDigestLength = 16;

std::string Digest(absl::string_view text) {
  return absl::StrCat(absl::Hex(XXH3_64bits(text.data(), text.size()), absl::kZeroPad16));
}

std::string Line(const std::string& json) { return absl::StrCat(Digest(json), " ", json, "\n"); }

// The JSON of the line that begins at `at`, and moves `at` behind it; nothing if it is not whole.
std::optional<std::string> ReadLine(absl::string_view bytes, size_t* at) {
  const size_t end = bytes.find('\n', *at);
  if (end == absl::string_view::npos || end < *at + kDigestLength + 1) return std::nullopt;
  std::string json(bytes.substr(*at + kDigestLength + 1, end - *at - kDigestLength - 1));
  if (bytes.substr(*at, kDigestLength) != Digest(json)) return std::nullopt;
  *at = end + 1;
  return json;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(const std::string& path,
                                                       const RunIdentity& run, bool may_begin) {
  absl::StatusOr<std::unique_ptr<DurableFile>> file = DurableFile::Open(path);
  if (!file.ok()) return file.status();
  if (absl::Status status = (*file)->Lock(); !status.ok()) return status;
  std::unique_ptr<Journal> journal(new Journal(*std::move(file)));
  if (absl::Status status = journal->ReadLines(path, run, may_begin); !status.ok()) return status;
  return journal;
}

absl::Status Journal::ReadLines(const std::string& path, const RunIdentity& run, bool may_begin) {
  const absl::StatusOr<std::string> bytes = file_->ReadAll();
  if (!bytes.ok()) return bytes.status();
  size_t at = 0;
  const std::optional<std::string> before = ReadLine(*bytes, &at);
  if (!before.has_value()) {
    // Nothing of the output was written before the journal's first line was.
    if (!may_begin) {
      return absl::FailedPreconditionError(absl::StrCat(
          path,
          ": is damaged, so that the output beside it cannot be gone on with (--overwrite "
          "begins anew)"));
    }
    absl::Status status = file_->Truncate(0);
    status.Update(file_->Append(Line(run)));
    status.Update(file_->Sync());
    status.Update(SyncFolderOf(path));
    return status;
  }
  if (*before != run) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, ": is of an interrupted run that was not this one: ", DifferenceOfRuns(*before, run),
        " (--overwrite begins anew)"));
  }
  while (const std::optional<std::string> json = ReadLine(*bytes, &at)) {
    const Json value = Json::parse(*json, nullptr, /*allow_exceptions=*/false);
    if (!value.is_object()) break;
    last_ = Entry{.checkpoint = {.documents = value.value("documents", uint64_t{0}),
                                 .rows = value.value("rows", uint64_t{0}),
                                 .rejects = value.value("rejects", uint64_t{0}),
                                 .run = run},
                  .sizes = value.value("sizes", std::vector<uint64_t>())};
  }
  return file_->Truncate(at);
}

absl::Status Journal::Add(const Entry& entry) {
  const Json value = {{"documents", entry.checkpoint.documents},
                      {"rows", entry.checkpoint.rows},
                      {"rejects", entry.checkpoint.rejects},
                      {"sizes", entry.sizes}};
  if (absl::Status status = file_->Append(Line(value.dump())); !status.ok()) return status;
  return file_->Sync();
}

}  // namespace quiver::index
