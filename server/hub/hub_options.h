#ifndef QUIVER_SERVER_HUB_HUB_OPTIONS_H_
#define QUIVER_SERVER_HUB_HUB_OPTIONS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quiver {

// Where models come from, and where they are kept.
struct HubOptions {
  // http://HOST or https://HOST, with a path if the hub has one, without a slash at the end.
  std::string endpoint = "https://huggingface.co";
  // Sent to the endpoint alone; empty for none.
  std::string token;
  // The folder that holds models--ORGANIZATION--NAME.
  std::string cache_dir;
  // Authorities that servers' certificates are checked against, in PEM.
  std::string ca_file;
  // Take what the cache has; never use the network.
  bool offline = false;
  // Ask the hub what the revision is now, even if the cache has all files of what it was.
  bool update = false;
  // Files under way at a time.
  int jobs = 8;
  // Tries of a request in a row that get no byte further.
  int tries = 5;
};

// The defaults as the hub's own tools take them from the environment: HF_ENDPOINT, HF_TOKEN or else
// the file HF_TOKEN_PATH, HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, HF_HUB_OFFLINE,
// TRANSFORMERS_OFFLINE; authorities from REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or SSL_CERT_FILE, or
// where the system has them. INVALID_ARGUMENT names the variable.
absl::StatusOr<HubOptions> HubOptionsFromEnvironment();

// `where` names the flag or variable in an error.
absl::StatusOr<std::string> CheckEndpoint(absl::string_view where, absl::string_view endpoint);
absl::StatusOr<std::string> ReadTokenFile(absl::string_view where, const std::string& path);

}  // namespace quiver

#endif  // QUIVER_SERVER_HUB_HUB_OPTIONS_H_
