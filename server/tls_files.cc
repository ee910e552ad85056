#include "server/tls_files.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "openssl/bio.h"
#include "openssl/pem.h"
#include "openssl/x509.h"
#include "server/hub/small_file.h"

namespace quiver {
namespace {

constexpr char kCertificateFlag[] = "--tls-certificate";
constexpr char kKeyFlag[] = "--tls-key";

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

absl::Status Wrong(const char* flag, const std::string& file, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(flag, " '", file, "' ", what));
}

Owned<BIO> BioOf(const std::string& text) {
  return Owned<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

absl::Time TimeOf(const ASN1_TIME* time) {
  int days = 0;
  int seconds = 0;
  const std::unique_ptr<ASN1_TIME, decltype(&ASN1_TIME_free)> epoch(ASN1_TIME_set(nullptr, 0),
                                                                    &ASN1_TIME_free);
  ASN1_TIME_diff(&days, &seconds, epoch.get(), time);
  return absl::UnixEpoch() + absl::Hours(24) * days + absl::Seconds(seconds);
}

std::string TimeText(absl::Time time) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", time, absl::UTCTimeZone());
}

// Instead of asking for a passphrase on the terminal.
int NoPassphrase(char*, int, int, void*) { return -1; }

}  // namespace

absl::StatusOr<TlsFiles> TlsFiles::Load(const std::string& certificate_file,
                                        const std::string& key_file, absl::Time now) {
  absl::StatusOr<std::string> chain = ReadSmallFile(kCertificateFlag, certificate_file);
  if (!chain.ok()) return chain.status();
  absl::StatusOr<std::string> key_text = ReadSmallFile(kKeyFlag, key_file);
  if (!key_text.ok()) return key_text.status();

  const Owned<X509> certificate(
      PEM_read_bio_X509(BioOf(*chain).get(), nullptr, NoPassphrase, nullptr));
  if (certificate == nullptr) {
    return Wrong(kCertificateFlag, certificate_file, "must begin with a certificate in PEM");
  }
  const Owned<EVP_PKEY> key(
      PEM_read_bio_PrivateKey(BioOf(*key_text).get(), nullptr, NoPassphrase, nullptr));
  if (key == nullptr) {
    return Wrong(kKeyFlag, key_file, "must be a private key in PEM that is not encrypted");
  }
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    return Wrong(kKeyFlag, key_file,
                 absl::StrCat("must be the key of ", kCertificateFlag, " '", certificate_file,
                              "', is another's"));
  }
  const absl::Time begins = TimeOf(X509_get0_notBefore(certificate.get()));
  TlsFiles files;
  files.expires = TimeOf(X509_get0_notAfter(certificate.get()));
  if (now < begins || now >= files.expires) {
    return Wrong(kCertificateFlag, certificate_file,
                 absl::StrCat("must be valid now, is valid from ", TimeText(begins), " until ",
                              TimeText(files.expires)));
  }
  files.certificate_chain = *std::move(chain);
  files.private_key = *std::move(key_text);
  return files;
}

}  // namespace quiver
