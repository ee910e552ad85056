#ifndef QUIVER_SERVER_HUB_HUB_CACHE_H_
#define QUIVER_SERVER_HUB_HUB_CACHE_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace quiver {

// One model's place in a cache laid out as the hub's own tools lay it out, so that either finds
// what the other fetched:
//
//   models--ORGANIZATION--NAME/blobs/ETAG              a file's bytes; ETAG.incomplete: some of
//   them models--ORGANIZATION--NAME/snapshots/COMMIT/FILE   a relative link to the blob
//   models--ORGANIZATION--NAME/refs/REVISION           the commit that a branch or a tag was
//   models--ORGANIZATION--NAME/.no_exist/COMMIT/FILE   empty: the commit has no such file
//   .locks/models--ORGANIZATION--NAME/ETAG.lock        held (flock) by who writes the blob
//
// Whatever appears under its name appears whole, by rename. Thread-safe. Arguments are taken as
// they are: the caller has seen that they are no paths that lead elsewhere.
class HubCache {
 public:
  HubCache(absl::string_view cache_dir, absl::string_view repo);

  std::string SnapshotDir(absl::string_view commit) const;
  std::string BlobPath(absl::string_view etag) const;
  std::string PartialPath(absl::string_view etag) const;
  std::string LockPath(absl::string_view etag) const;

  // The commit that `revision` is, as far as the cache knows: a commit is itself.
  std::optional<std::string> FindCommit(absl::string_view revision) const;
  // Whether the snapshot has the file, whole.
  bool Has(absl::string_view commit, absl::string_view file) const;
  // Whether it is known that the commit has no such file.
  bool KnownAbsent(absl::string_view commit, absl::string_view file) const;

  // Makes the folders that blobs and locks stand in.
  absl::Status Prepare() const;
  // Errors name the path.
  absl::Status SetCommit(absl::string_view revision, absl::string_view commit) const;
  absl::Status MarkAbsent(absl::string_view commit, absl::string_view file) const;
  // Makes the blob the snapshot's `file`.
  absl::Status Link(absl::string_view commit, absl::string_view file, absl::string_view etag) const;

 private:
  const std::string locks_;
  const std::string root_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_HUB_HUB_CACHE_H_
