#ifndef QUIVER_TOOLS_INDEX_DECOMPRESSION_H_
#define QUIVER_TOOLS_INDEX_DECOMPRESSION_H_

#include <memory>
#include <string>

#include "tools/index/byte_source.h"

namespace quiver::index {

// What `compressed` holds: one gzip member (RFC 1952) or zstd frame (RFC 8878), or several in a
// row. `name` is for messages.
std::unique_ptr<ByteSource> GunzipBytes(std::unique_ptr<ByteSource> compressed, std::string name);
std::unique_ptr<ByteSource> UnzstdBytes(std::unique_ptr<ByteSource> compressed, std::string name);

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_DECOMPRESSION_H_
