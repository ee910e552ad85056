#ifndef QUIVER_SERVER_HUB_BLOB_DOWNLOAD_H_
#define QUIVER_SERVER_HUB_BLOB_DOWNLOAD_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "server/hub/hub_cache.h"
#include "server/hub/hub_http.h"
#include "server/hub/hub_options.h"

namespace quiver {

// A file of a commit, as the hub says.
struct HubFile {
  std::string name;
  std::string url;
  // SHA-256 or git's SHA-1 of the bytes in hexadecimal, or any other name without slashes.
  std::string etag;
  int64_t bytes = -1;  // -1: unknown
};

// What the hub says of `name` in `commit` of `repo`. Errors are HubError()'s.
absl::Status FindHubFile(const HubOptions& options, const HubHttp& http, const std::string& repo,
                         const std::string& commit, const std::string& name, HubFile* file);

// Makes the file a blob of the cache, and the snapshot's file: whole, of the size and of the digest
// that the hub told, or an error and at most a partial file, with which the next call goes on. Two
// processes that fetch the same blob take turns. `on_bytes` hears of each step of the transfer:
// bytes there by now.
absl::Status DownloadBlob(const HubOptions& options, const HubHttp& http, const HubCache& cache,
                          const std::string& commit, const HubFile& file,
                          const std::function<void(int64_t)>& on_bytes);

}  // namespace quiver

#endif  // QUIVER_SERVER_HUB_BLOB_DOWNLOAD_H_
