// Who may call: the keys of a file, which both doors ask for.
#ifndef QUIVER_SERVER_API_KEYS_H_
#define QUIVER_SERVER_API_KEYS_H_

#include <memory>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quiver {

// Knows keys by their SHA-256 alone, so that neither the file nor the process's memory gives one
// away. Keys must be random: a short or guessable one can be found from its hash. Thread-safe.
class ApiKeys {
 public:
  // A line of the file is a key's SHA-256 in hexadecimal, then anything, such as whose it is; empty
  // lines and those that begin with '#' are skipped. INVALID_ARGUMENT names the file and the line;
  // a file without a key is an error too.
  static absl::StatusOr<std::shared_ptr<const ApiKeys>> Load(const std::string& path);

  // `authorization` is the value of that HTTP header or gRPC metadata: "Bearer KEY".
  // UNAUTHENTICATED unless the file has the key.
  absl::Status Check(absl::string_view authorization) const;

 private:
  // Hashes, in bytes.
  absl::flat_hash_set<std::string> hashes_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_API_KEYS_H_
