// What is indexed: documents, one after the other.
#ifndef QUIVER_TOOLS_INDEX_DOCUMENT_SOURCE_H_
#define QUIVER_TOOLS_INDEX_DOCUMENT_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/index/text_template.h"

namespace quiver::index {

struct Document {
  // Where it stands in the input: "line 7", a path.
  std::string place;
  // Empty if it has no readable name.
  std::string id;
  // Valid UTF-8, or a FieldError that says why there is no text.
  absl::StatusOr<std::string> text;
};

// One thread reads; any thread may interrupt and ask for progress.
class DocumentSource {
 public:
  virtual ~DocumentSource() = default;

  // The next document. False at the end, after Interrupt and after an error of reading. A record
  // that is broken is a document without a text, never the end.
  virtual bool Next(Document* document) = 0;
  // Passes the next document without looking into it. False as Next.
  virtual bool Skip() = 0;
  // Makes this and every later Next and Skip return false soon.
  virtual void Interrupt() = 0;
  // What kept Next from reading to the end.
  virtual absl::Status status() const = 0;
  // The part of the input that was read, in [0, 1]; negative if its size is not known.
  virtual double progress() const = 0;
};

enum class DocumentFormat {
  // By the name: a directory; .csv, .tsv, each also with .gz or .zst; anything else, standard input
  // too, is JSONL.
  kDetect,
  // An object a line; blank lines are skipped.
  kJsonl,
  // RFC 4180 with names in the first record; the second separates by tabs.
  kCsv,
  kTsv,
  // The regular files below a directory, a document each, in the order of their paths' bytes. Its
  // fields are "text" and "path", its id the path.
  kDirectory,
};

struct DocumentOptions {
  // A file, a directory, or "-" for standard input.
  std::string path;
  DocumentFormat format = DocumentFormat::kDetect;
  // The field that names a document, a string or an integer. If it is empty: "id" where there is
  // one, else the record's number, counted from 0.
  std::string id_field;
  TextTemplate text;
};

// Bytes of the longest record that is looked at.
inline constexpr size_t kMaxRecordBytes = size_t{64} << 20;

// Errors name the path.
absl::StatusOr<std::unique_ptr<DocumentSource>> OpenDocuments(DocumentOptions options);

// What tells this input from others, for a run's identity: its path, and its size and when it was
// last written, or those of all files of a directory.
absl::StatusOr<std::string> InputIdentity(const std::string& path);

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_DOCUMENT_SOURCE_H_
