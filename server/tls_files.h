// The certificate that both doors show.
#ifndef QUIVER_SERVER_TLS_FILES_H_
#define QUIVER_SERVER_TLS_FILES_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace quiver {

// A certificate with those that lead to its authority, and its private key, both PEM.
struct TlsFiles {
  std::string certificate_chain;
  std::string private_key;
  // Of the certificate itself.
  absl::Time expires;

  // Reads and checks them. INVALID_ARGUMENT names the flag and the file, and what is wrong: it
  // cannot be read, is no PEM, is encrypted, is not valid at `now`, or the key is another
  // certificate's.
  static absl::StatusOr<TlsFiles> Load(const std::string& certificate_file,
                                       const std::string& key_file, absl::Time now);
};

}  // namespace quiver

#endif  // QUIVER_SERVER_TLS_FILES_H_
