#include "tools/index/decompression.h"

#include <zlib.h>
#include <zstd.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace quiver::index {
namespace {

constexpr size_t kBlockBytes = size_t{256} << 10;
// What inflateInit2 takes for a gzip header with the largest window.
constexpr int kGzipWindow = 15 + 16;

// Reads compressed blocks; a format turns them into bytes.
class Decompressor : public ByteSource {
 public:
  Decompressor(std::unique_ptr<ByteSource> compressed, std::string name)
      : compressed_(std::move(compressed)), name_(std::move(name)), block_(kBlockBytes, '\0') {}

  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    for (;;) {
      // Also without new input: the format may hold bytes that the last buffer had no room for.
      absl::StatusOr<size_t> written = Decompress(buffer, size);
      if (!written.ok() || *written > 0) return written;
      if (begin_ < end_) continue;
      const absl::StatusOr<size_t> count = compressed_->Read(block_.data(), block_.size());
      if (!count.ok()) return count.status();
      if (*count == 0) {
        return at_border_ ? absl::StatusOr<size_t>(0) : Broken("it ends in the middle");
      }
      begin_ = 0;
      end_ = *count;
    }
  }
  void Interrupt() override { compressed_->Interrupt(); }
  uint64_t position() const override { return compressed_->position(); }

 protected:
  // Consumes some of [begin_, end_) of the block and writes up to `size` bytes; sets at_border_.
  virtual absl::StatusOr<size_t> Decompress(char* buffer, size_t size) = 0;

  absl::Status Broken(absl::string_view why) const {
    return absl::DataLossError(absl::StrCat(name_, ": its compressed data is broken: ", why));
  }

  const std::unique_ptr<ByteSource> compressed_;
  const std::string name_;
  std::string block_;
  size_t begin_ = 0, end_ = 0;
  // Whether the data may end here.
  bool at_border_ = true;
};

class Gunzip : public Decompressor {
 public:
  Gunzip(std::unique_ptr<ByteSource> compressed, std::string name)
      : Decompressor(std::move(compressed), std::move(name)) {
    ready_ = inflateInit2(&stream_, kGzipWindow) == Z_OK;
  }
  ~Gunzip() override { inflateEnd(&stream_); }

 protected:
  absl::StatusOr<size_t> Decompress(char* buffer, size_t size) override {
    if (!ready_) return absl::ResourceExhaustedError(absl::StrCat(name_, ": no memory for zlib"));
    if (at_border_) {
      if (begin_ == end_) return 0;
      inflateReset(&stream_);
      at_border_ = false;
    }
    stream_.next_in = reinterpret_cast<Bytef*>(block_.data() + begin_);
    stream_.avail_in = static_cast<uInt>(end_ - begin_);
    stream_.next_out = reinterpret_cast<Bytef*>(buffer);
    stream_.avail_out = static_cast<uInt>(size);
    const int result = inflate(&stream_, Z_NO_FLUSH);
    begin_ = end_ - stream_.avail_in;
    if (result == Z_STREAM_END) {
      at_border_ = true;
    } else if (result != Z_OK && result != Z_BUF_ERROR) {
      return Broken(stream_.msg != nullptr ? stream_.msg : "zlib cannot read it");
    }
    return size - stream_.avail_out;
  }

 private:
  z_stream stream_ = {};
  bool ready_ = false;
};

class Unzstd : public Decompressor {
 public:
  Unzstd(std::unique_ptr<ByteSource> compressed, std::string name)
      : Decompressor(std::move(compressed), std::move(name)), stream_(ZSTD_createDStream()) {}
  ~Unzstd() override { ZSTD_freeDStream(stream_); }

 protected:
  absl::StatusOr<size_t> Decompress(char* buffer, size_t size) override {
    if (at_border_ && begin_ == end_) return 0;
    ZSTD_inBuffer in = {.src = block_.data(), .size = end_, .pos = begin_};
    ZSTD_outBuffer out = {.dst = buffer, .size = size, .pos = 0};
    const size_t left = ZSTD_decompressStream(stream_, &out, &in);
    if (ZSTD_isError(left) != 0) return Broken(ZSTD_getErrorName(left));
    begin_ = in.pos;
    at_border_ = left == 0;
    return out.pos;
  }

 private:
  ZSTD_DStream* const stream_;
};

}  // namespace

std::unique_ptr<ByteSource> GunzipBytes(std::unique_ptr<ByteSource> compressed, std::string name) {
  return std::make_unique<Gunzip>(std::move(compressed), std::move(name));
}

std::unique_ptr<ByteSource> UnzstdBytes(std::unique_ptr<ByteSource> compressed, std::string name) {
  return std::make_unique<Unzstd>(std::move(compressed), std::move(name));
}

}  // namespace quiver::index
