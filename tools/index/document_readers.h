// The formats of documents.
#ifndef QUIVER_TOOLS_INDEX_DOCUMENT_READERS_H_
#define QUIVER_TOOLS_INDEX_DOCUMENT_READERS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/index/byte_source.h"
#include "tools/index/document_source.h"

namespace quiver::index {

// The field that names a document where no other was asked for.
inline const std::string kDefaultIdField = "id";

// `total_bytes` is the size of the file, 0 if it is not known.
std::unique_ptr<DocumentSource> JsonlDocuments(DocumentOptions options,
                                               std::unique_ptr<ByteSource> bytes,
                                               uint64_t total_bytes);
std::unique_ptr<DocumentSource> CsvDocuments(DocumentOptions options, char separator,
                                             std::unique_ptr<ByteSource> bytes,
                                             uint64_t total_bytes);
absl::StatusOr<std::unique_ptr<DocumentSource>> DirectoryDocuments(DocumentOptions options);

// The paths of the regular files below `path`, relative to it, in the order of their bytes.
absl::StatusOr<std::vector<std::string>> FilesBelow(const std::string& path);

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_DOCUMENT_READERS_H_
