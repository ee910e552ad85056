#include "server/hub/blob_download.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace quiver {
namespace {

// Closed, and a lock that it holds given back, at its end.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

bool IsHex(absl::string_view text, size_t size) {
  return text.size() == size && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
         });
}

struct FreeDigest {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

// The digest of a whole file that `etag` is one of; empty if it is none.
absl::StatusOr<std::string> Digest(int fd, int64_t bytes, absl::string_view etag) {
  const EVP_MD* kind = IsHex(etag, 64) ? EVP_sha256() : IsHex(etag, 40) ? EVP_sha1() : nullptr;
  if (kind == nullptr) return "";
  const std::unique_ptr<EVP_MD_CTX, FreeDigest> context(EVP_MD_CTX_new());
  EVP_DigestInit_ex(context.get(), kind, nullptr);
  if (kind == EVP_sha1()) {
    // As git names what it keeps.
    const std::string head = absl::StrCat("blob ", bytes);
    EVP_DigestUpdate(context.get(), head.c_str(), head.size() + 1);
  }
  std::vector<char> buffer(1 << 20);
  for (int64_t at = 0; at < bytes;) {
    const ssize_t got = pread(fd, buffer.data(), buffer.size(), at);
    if (got <= 0) return absl::ErrnoToStatus(got < 0 ? errno : EIO, "reading it again");
    EVP_DigestUpdate(context.get(), buffer.data(), static_cast<size_t>(got));
    at += got;
  }
  std::string digest(EVP_MAX_MD_SIZE, '\0');
  unsigned size = 0;
  EVP_DigestFinal_ex(context.get(), reinterpret_cast<unsigned char*>(digest.data()), &size);
  return absl::BytesToHexString(digest.substr(0, size));
}

int64_t SizeOf(int fd) {
  struct stat info;
  return fstat(fd, &info) == 0 ? static_cast<int64_t>(info.st_size) : 0;
}

absl::Status WriteAll(int fd, int64_t at, absl::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t wrote = pwrite(fd, bytes.data(), bytes.size(), at);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return absl::ErrnoToStatus(errno, absl::StrCat("writing ", path));
    bytes.remove_prefix(static_cast<size_t>(wrote));
    at += wrote;
  }
  return absl::OkStatus();
}

// The rest of the file, after what is there.
absl::Status Transfer(const HubOptions& options, const HubHttp& http, const HubFile& file,
                      const std::string& path, int fd,
                      const std::function<void(int64_t)>& on_bytes) {
  return Retry(options, [&](double* wait_seconds, bool* progressed) -> absl::Status {
    int64_t at = SizeOf(fd);
    if (file.bytes >= 0 && at > file.bytes) at = 0;
    if (file.bytes >= 0 && at == file.bytes && at > 0) return absl::OkStatus();
    const int64_t begin = at;
    bool first = true;
    const auto sink = [&](int code, absl::string_view bytes) -> absl::Status {
      if (first) {
        // A server that does not take up where it was asked to sends all of it.
        if (code == 200) at = 0;
        first = false;
        if (ftruncate(fd, at) != 0) return absl::ErrnoToStatus(errno, path);
      }
      if (file.bytes >= 0 && at + static_cast<int64_t>(bytes.size()) > file.bytes) {
        return absl::DataLossError(
            absl::StrCat(file.name, ": more than the ", file.bytes, " bytes that the hub told"));
      }
      if (absl::Status status = WriteAll(fd, at, bytes, path); !status.ok()) return status;
      at += static_cast<int64_t>(bytes.size());
      on_bytes(at);
      return absl::OkStatus();
    };
    const absl::StatusOr<HubReply> reply = http.Download(file.url, begin, sink);
    *progressed = at > begin;
    if (!reply.ok()) return reply.status();
    if (reply->code == 416) {
      // More is there than the hub has.
      if (ftruncate(fd, 0) != 0) return absl::ErrnoToStatus(errno, path);
      return absl::UnavailableError(
          absl::StrCat(file.name, ": the hub has no bytes from ", begin, " on"));
    }
    if (reply->code != 200 && reply->code != 206) {
      *wait_seconds = RetryAfterSeconds(*reply);
      return HubError(options, *reply, file.name);
    }
    if (first && ftruncate(fd, 0) != 0) return absl::ErrnoToStatus(errno, path);
    if (file.bytes >= 0 && at < file.bytes) {
      return absl::UnavailableError(absl::StrCat(file.name, ": the connection was cut after ", at,
                                                 " of ", file.bytes, " bytes"));
    }
    return absl::OkStatus();
  });
}

}  // namespace

absl::Status FindHubFile(const HubOptions& options, const HubHttp& http, const std::string& repo,
                         const std::string& commit, const std::string& name, HubFile* file) {
  file->name = name;
  file->url = absl::StrCat(options.endpoint, "/", repo, "/resolve/", commit, "/", name);
  return Retry(options, [&](double* wait_seconds, bool*) -> absl::Status {
    const absl::StatusOr<HubReply> reply = http.Head(file->url);
    if (!reply.ok()) return reply.status();
    if (reply->code >= 400 || reply->code < 200) {
      *wait_seconds = RetryAfterSeconds(*reply);
      return HubError(options, *reply, absl::StrCat(repo, "'s ", name));
    }
    // Of large files the first response tells, before it sends one elsewhere.
    std::string etag = reply->Header("x-linked-etag");
    std::string size = reply->Header("x-linked-size");
    if (etag.empty()) etag = reply->Header("etag");
    if (size.empty() && reply->code < 300) size = reply->Header("content-length");
    absl::string_view bare = etag;
    absl::ConsumePrefix(&bare, "W/");
    absl::ConsumePrefix(&bare, "\"");
    absl::ConsumeSuffix(&bare, "\"");
    const bool is_name = !bare.empty() && bare.size() <= 200 && bare.front() != '.' &&
                         std::all_of(bare.begin(), bare.end(), [](char c) {
                           return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
                         });
    if (!is_name) {
      return absl::FailedPreconditionError(absl::StrCat(name, " at ", options.endpoint,
                                                        " has no ETag that could name it, but '",
                                                        absl::Utf8SafeCEscape(etag), "'"));
    }
    file->etag = std::string(bare);
    if (!absl::SimpleAtoi(size, &file->bytes) || file->bytes < 0) file->bytes = -1;
    return absl::OkStatus();
  });
}

absl::Status DownloadBlob(const HubOptions& options, const HubHttp& http, const HubCache& cache,
                          const std::string& commit, const HubFile& file,
                          const std::function<void(int64_t)>& on_bytes) {
  const Descriptor lock(
      open(cache.LockPath(file.etag).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (lock.get() < 0) return absl::ErrnoToStatus(errno, cache.LockPath(file.etag));
  while (flock(lock.get(), LOCK_EX) != 0) {
    if (errno != EINTR) return absl::ErrnoToStatus(errno, cache.LockPath(file.etag));
  }
  const std::string blob = cache.BlobPath(file.etag);
  // Another process may have brought it, or another file has the same bytes.
  if (access(blob.c_str(), R_OK) == 0) {
    on_bytes(std::max<int64_t>(file.bytes, 0));
    return cache.Link(commit, file.name, file.etag);
  }
  const std::string partial = cache.PartialPath(file.etag);
  const Descriptor out(open(partial.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (out.get() < 0) return absl::ErrnoToStatus(errno, partial);
  absl::Status status = Transfer(options, http, file, partial, out.get(), on_bytes);
  if (absl::IsDataLoss(status)) unlink(partial.c_str());
  if (!status.ok()) return status;
  const absl::StatusOr<std::string> digest = Digest(out.get(), SizeOf(out.get()), file.etag);
  if (!digest.ok()) return digest.status();
  if (!digest->empty() && *digest != file.etag) {
    unlink(partial.c_str());
    return absl::DataLossError(absl::StrCat(file.name, ": its digest is ", *digest,
                                            ", but the hub told ", file.etag,
                                            ": it was changed on the way, and is not kept"));
  }
  if (fsync(out.get()) != 0 || std::rename(partial.c_str(), blob.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, blob);
  }
  return cache.Link(commit, file.name, file.etag);
}

}  // namespace quiver
