#include "server/hub/hub_cache.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/hub/model_name.h"

namespace quiver {
namespace {

namespace fs = std::filesystem;

std::string FolderName(absl::string_view repo) {
  return absl::StrCat("models--", absl::StrReplaceAll(repo, {{"/", "--"}}));
}

absl::Status MakeFolder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  return error ? absl::ErrnoToStatus(error.value(), path.string()) : absl::OkStatus();
}

// A name beside `path` that nobody else has.
std::string DraftPath(const std::string& path) {
  static std::atomic<int> count{0};
  return absl::StrCat(path, ".", getpid(), "-", count++, ".tmp");
}

absl::Status Rename(const std::string& draft, const std::string& path) {
  if (std::rename(draft.c_str(), path.c_str()) == 0) return absl::OkStatus();
  const absl::Status status = absl::ErrnoToStatus(errno, path);
  unlink(draft.c_str());
  return status;
}

absl::Status WriteWhole(const std::string& path, absl::string_view text) {
  if (absl::Status status = MakeFolder(fs::path(path).parent_path()); !status.ok()) return status;
  const std::string draft = DraftPath(path);
  std::ofstream file(draft, std::ios::binary);
  file << text;
  file.close();
  if (!file) {
    const absl::Status status = absl::ErrnoToStatus(errno, path);
    unlink(draft.c_str());
    return status;
  }
  return Rename(draft, path);
}

bool IsFile(const std::string& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

}  // namespace

HubCache::HubCache(absl::string_view cache_dir, absl::string_view repo)
    : locks_(absl::StrCat(cache_dir, "/.locks/", FolderName(repo))),
      root_(absl::StrCat(cache_dir, "/", FolderName(repo))) {}

std::string HubCache::SnapshotDir(absl::string_view commit) const {
  return absl::StrCat(root_, "/snapshots/", commit);
}

std::string HubCache::BlobPath(absl::string_view etag) const {
  return absl::StrCat(root_, "/blobs/", etag);
}

std::string HubCache::PartialPath(absl::string_view etag) const {
  return absl::StrCat(BlobPath(etag), ".incomplete");
}

std::string HubCache::LockPath(absl::string_view etag) const {
  return absl::StrCat(locks_, "/", etag, ".lock");
}

std::optional<std::string> HubCache::FindCommit(absl::string_view revision) const {
  if (IsCommit(revision)) return std::string(revision);
  const std::string path = absl::StrCat(root_, "/refs/", revision);
  if (!IsFile(path)) return std::nullopt;
  std::ifstream in(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), {}};
  absl::StripAsciiWhitespace(&text);
  if (!IsCommit(text)) return std::nullopt;
  return text;
}

bool HubCache::Has(absl::string_view commit, absl::string_view file) const {
  return IsFile(absl::StrCat(SnapshotDir(commit), "/", file));
}

bool HubCache::KnownAbsent(absl::string_view commit, absl::string_view file) const {
  return IsFile(absl::StrCat(root_, "/.no_exist/", commit, "/", file));
}

absl::Status HubCache::Prepare() const {
  if (absl::Status status = MakeFolder(root_ + "/blobs"); !status.ok()) return status;
  return MakeFolder(locks_);
}

absl::Status HubCache::SetCommit(absl::string_view revision, absl::string_view commit) const {
  if (FindCommit(revision) == commit) return absl::OkStatus();
  return WriteWhole(absl::StrCat(root_, "/refs/", revision), commit);
}

absl::Status HubCache::MarkAbsent(absl::string_view commit, absl::string_view file) const {
  if (KnownAbsent(commit, file)) return absl::OkStatus();
  return WriteWhole(absl::StrCat(root_, "/.no_exist/", commit, "/", file), "");
}

absl::Status HubCache::Link(absl::string_view commit, absl::string_view file,
                            absl::string_view etag) const {
  const std::string path = absl::StrCat(SnapshotDir(commit), "/", file);
  if (absl::Status status = MakeFolder(fs::path(path).parent_path()); !status.ok()) return status;
  // Out of snapshots/COMMIT, and of each folder of the file's own.
  std::string target = "../../";
  for (auto slashes = std::count(file.begin(), file.end(), '/'); slashes > 0; --slashes) {
    target += "../";
  }
  absl::StrAppend(&target, "blobs/", etag);
  const std::string draft = DraftPath(path);
  if (symlink(target.c_str(), draft.c_str()) != 0) return absl::ErrnoToStatus(errno, path);
  return Rename(draft, path);
}

}  // namespace quiver
