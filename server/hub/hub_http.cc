#include "server/hub/hub_http.h"

#include <curl/curl.h>

#include <algorithm>
#include <memory>
#include <mutex>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace quiver {
namespace {

constexpr long kConnectSeconds = 15;
// A transfer that moves less than a byte a second for so long is cut.
constexpr long kStallSeconds = 30;
constexpr long kMaxRedirects = 8;
constexpr double kFirstWaitSeconds = 0.5;
constexpr double kMostWaitSeconds = 60;

struct FreeCurl {
  void operator()(CURL* curl) const { curl_easy_cleanup(curl); }
};
struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

// What of a URL says where requests go: "https://host:port".
absl::string_view Origin(absl::string_view url) {
  const size_t scheme = url.find("://");
  if (scheme == absl::string_view::npos) return "";
  return url.substr(0, url.find('/', scheme + 3));
}

class Request {
 public:
  Request(const HubOptions& options, const std::string& url) : curl_(curl_easy_init()) {
    static std::once_flag once;
    std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
    Set(CURLOPT_URL, url.c_str());
    Set(CURLOPT_NOSIGNAL, 1L);
    Set(CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
    Set(CURLOPT_LOW_SPEED_LIMIT, 1L);
    Set(CURLOPT_LOW_SPEED_TIME, kStallSeconds);
    Set(CURLOPT_MAXREDIRS, kMaxRedirects);
    Set(CURLOPT_USERAGENT, "quiver");
    // Nobody is sent from a protected connection to one that is not.
    const bool is_protected = absl::StartsWith(url, "https:");
    Set(CURLOPT_PROTOCOLS_STR, "http,https");
    Set(CURLOPT_REDIR_PROTOCOLS_STR, is_protected ? "https" : "http,https");
    if (!options.ca_file.empty()) Set(CURLOPT_CAINFO, options.ca_file.c_str());
    if (!options.token.empty()) {
      headers_.reset(curl_slist_append(
          nullptr, absl::StrCat("Authorization: Bearer ", options.token).c_str()));
      Set(CURLOPT_HTTPHEADER, headers_.get());
    }
    Set(CURLOPT_HEADERFUNCTION, &Request::OnHeader);
    Set(CURLOPT_HEADERDATA, this);
    Set(CURLOPT_WRITEFUNCTION, &Request::OnBody);
    Set(CURLOPT_WRITEDATA, this);
    Set(CURLOPT_ERRORBUFFER, error_);
  }

  template <typename Value>
  void Set(CURLoption option, Value value) {
    curl_easy_setopt(curl_.get(), option, value);
  }

  absl::StatusOr<HubReply> Run(const HubHttp::Sink* sink) {
    sink_ = sink;
    const CURLcode result = curl_easy_perform(curl_.get());
    if (!sink_status_.ok()) return sink_status_;
    if (result != CURLE_OK) {
      const char* url = nullptr;
      curl_easy_getinfo(curl_.get(), CURLINFO_EFFECTIVE_URL, &url);
      const std::string message =
          absl::StrCat(Origin(url != nullptr ? url : ""), ": ",
                       error_[0] != '\0' ? error_ : curl_easy_strerror(result));
      switch (result) {
        case CURLE_PEER_FAILED_VERIFICATION:
        case CURLE_SSL_CACERT_BADFILE:
        case CURLE_UNSUPPORTED_PROTOCOL:
        case CURLE_URL_MALFORMAT:
          return absl::InvalidArgumentError(message);
        case CURLE_TOO_MANY_REDIRECTS:
          return absl::FailedPreconditionError(message);
        default:
          return absl::UnavailableError(message);
      }
    }
    reply_.code = Code();
    return std::move(reply_);
  }

 private:
  int Code() const {
    long code = 0;
    curl_easy_getinfo(curl_.get(), CURLINFO_RESPONSE_CODE, &code);
    return static_cast<int>(code);
  }

  static size_t OnHeader(char* data, size_t size, size_t count, void* self) {
    auto* request = static_cast<Request*>(self);
    const absl::string_view line(data, size * count);
    // Of a redirect's responses each begins anew.
    if (absl::StartsWith(line, "HTTP/")) request->reply_.headers.clear();
    if (const size_t colon = line.find(':'); colon != absl::string_view::npos) {
      request->reply_.headers[absl::AsciiStrToLower(line.substr(0, colon))] =
          std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
    }
    return line.size();
  }

  static size_t OnBody(char* data, size_t size, size_t count, void* self) {
    auto* request = static_cast<Request*>(self);
    const absl::string_view bytes(data, size * count);
    const int code = request->Code();
    if (request->sink_ != nullptr && (code == 200 || code == 206)) {
      request->sink_status_ = (*request->sink_)(code, bytes);
      return request->sink_status_.ok() ? bytes.size() : 0;
    }
    const auto room = static_cast<size_t>(HubHttp::kMaxBodyBytes) - request->reply_.body.size();
    if (bytes.size() > room) return 0;
    request->reply_.body.append(bytes.data(), bytes.size());
    return bytes.size();
  }

  std::unique_ptr<CURL, FreeCurl> curl_;
  std::unique_ptr<curl_slist, FreeList> headers_;
  char error_[CURL_ERROR_SIZE] = {};
  HubReply reply_;
  const HubHttp::Sink* sink_ = nullptr;
  absl::Status sink_status_;
};

}  // namespace

std::string HubReply::Header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

HubHttp::HubHttp(const HubOptions& options) : options_(options) {}

absl::StatusOr<HubReply> HubHttp::Get(const std::string& url) const {
  Request request(options_, url);
  request.Set(CURLOPT_FOLLOWLOCATION, 1L);
  return request.Run(nullptr);
}

absl::StatusOr<HubReply> HubHttp::Head(const std::string& url) const {
  std::string at = url;
  for (int i = 0; i < kMaxRedirects; ++i) {
    Request request(options_, at);
    request.Set(CURLOPT_NOBODY, 1L);
    // Sizes are of files, not of what is compressed on the way.
    request.Set(CURLOPT_ACCEPT_ENCODING, nullptr);
    absl::StatusOr<HubReply> reply = request.Run(nullptr);
    if (!reply.ok() || reply->code < 300 || reply->code > 399) return reply;
    const std::string location = reply->Header("location");
    if (absl::StartsWith(location, "/") && !absl::StartsWith(location, "//")) {
      at = absl::StrCat(Origin(at), location);
    } else if (!Origin(location).empty() && Origin(location) == Origin(at)) {
      at = location;
    } else {
      return reply;
    }
  }
  return absl::FailedPreconditionError(
      absl::StrCat(Origin(url), ": more than ", kMaxRedirects, " redirects"));
}

absl::StatusOr<HubReply> HubHttp::Download(const std::string& url, int64_t offset,
                                           const Sink& sink) const {
  Request request(options_, url);
  request.Set(CURLOPT_FOLLOWLOCATION, 1L);
  const std::string range = absl::StrCat(offset, "-");
  if (offset > 0) request.Set(CURLOPT_RANGE, range.c_str());
  return request.Run(&sink);
}

absl::Status HubError(const HubOptions& options, const HubReply& reply, absl::string_view what) {
  const std::string error = reply.Header("x-error-code");
  std::string said = reply.Header("x-error-message");
  if (!said.empty()) said = absl::StrCat(": ", absl::Utf8SafeCEscape(said));
  const std::string where = absl::StrCat(what, " at ", options.endpoint);
  const absl::string_view token = options.token.empty()
                                      ? "; no token was sent (HF_TOKEN or --token-file)"
                                      : "; the token that was sent does not allow it";
  if (error == "RevisionNotFound") {
    return absl::NotFoundError(absl::StrCat(where, " has no such revision", said));
  }
  if (error == "EntryNotFound") {
    return absl::NotFoundError(absl::StrCat(where, " has no such file", said));
  }
  if (error == "GatedRepo" || reply.code == 403) {
    return absl::PermissionDeniedError(
        absl::StrCat(where, " is not open to everybody (", reply.code, ")", token, said));
  }
  // The hub does not tell those without a token what there is.
  if (reply.code == 401) {
    return absl::UnauthenticatedError(
        absl::StrCat(where, " does not exist, or is private (401)", token, said));
  }
  if (reply.code == 404 || reply.code == 410) {
    return absl::NotFoundError(absl::StrCat(where, " does not exist (", reply.code, ")", said));
  }
  const std::string message = absl::StrCat(where, ": the hub answered ", reply.code, said);
  if (reply.code == 408 || reply.code == 429 || reply.code >= 500) {
    return absl::UnavailableError(message);
  }
  return absl::FailedPreconditionError(message);
}

double RetryAfterSeconds(const HubReply& reply) {
  double seconds = 0;
  if (!absl::SimpleAtod(reply.Header("retry-after"), &seconds) || !(seconds > 0)) return 0;
  return seconds;
}

absl::Status Retry(
    const HubOptions& options,
    const std::function<absl::Status(double* wait_seconds, bool* progressed)>& attempt) {
  double wait = kFirstWaitSeconds;
  for (int failed = 0;;) {
    double asked = 0;
    bool progressed = false;
    const absl::Status status = attempt(&asked, &progressed);
    if (!absl::IsUnavailable(status)) return status;
    if (progressed) {
      failed = 0;
      wait = kFirstWaitSeconds;
    }
    if (++failed >= options.tries) return status;
    absl::SleepFor(absl::Seconds(std::min(kMostWaitSeconds, std::max(asked, wait))));
    wait *= 2;
  }
}

}  // namespace quiver
