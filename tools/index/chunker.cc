#include "tools/index/chunker.h"

#include <algorithm>

#include "tools/index/text_borders.h"

namespace quiver::index {
namespace {

bool IsAsciiBlank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

class Cutter {
 public:
  Cutter(absl::string_view text, const ChunkOptions& options, const TokenCounter& count)
      : text_(text), options_(options), count_(count), borders_(FindBorders(text)) {}

  std::vector<Chunk> Run() {
    std::vector<Chunk> chunks;
    size_t first = 0;
    while (first + 1 < borders_.size()) {
      const size_t last = BestEnd(first, LastThatFits(first));
      const Chunk chunk = Trim(borders_[first].at, borders_[last].at);
      Add(chunk, &chunks);
      if (last + 1 == borders_.size()) break;
      first = NextStart(first, last);
    }
    return chunks;
  }

 private:
  // Where overlaps are large, a chunk may hold no more than the one before it, or all of it.
  static void Add(const Chunk& chunk, std::vector<Chunk>* chunks) {
    if (chunk.begin == chunk.end) return;
    if (!chunks->empty() && chunk.end <= chunks->back().end) return;
    if (!chunks->empty() && chunk.begin <= chunks->back().begin) chunks->pop_back();
    chunks->push_back(chunk);
  }

  size_t Tokens(size_t first, size_t last) const {
    const Chunk chunk = Trim(borders_[first].at, borders_[last].at);
    return count_(text_.substr(chunk.begin, chunk.end - chunk.begin));
  }

  Chunk Trim(size_t begin, size_t end) const {
    while (begin < end && IsAsciiBlank(text_[begin])) ++begin;
    while (begin < end && IsAsciiBlank(text_[end - 1])) --end;
    return {begin, end};
  }

  // The last border up to which a chunk from `first` has no more than max_tokens, as far as counts
  // grow with the text; the next one if there is none. Doubles, then halves, so that what is
  // counted is no longer than some chunks.
  size_t LastThatFits(size_t first) const {
    const size_t end = borders_.size() - 1;
    size_t fits = first + 1;
    size_t step = options_.max_tokens;
    size_t fails = end + 1;
    while (fits < end) {
      const size_t next = std::min(end, fits + step);
      if (Tokens(first, next) > options_.max_tokens) {
        fails = next;
        break;
      }
      fits = next;
      step *= 2;
    }
    while (fits + 1 < fails && fails <= end) {
      const size_t middle = fits + (fails - fits) / 2;
      (Tokens(first, middle) <= options_.max_tokens ? fits : fails) = middle;
    }
    return fits;
  }

  // The best place to end in what fits, which `last` closes.
  size_t BestEnd(size_t first, size_t last) const {
    if (last + 1 == borders_.size()) return last;
    const size_t half = borders_[first].at + (borders_[last].at - borders_[first].at) / 2;
    for (const BorderKind kind : {BorderKind::kParagraph, BorderKind::kSentence}) {
      for (size_t i = last; i > first && borders_[i].at > half; --i) {
        if (borders_[i].kind >= kind) return i;
      }
    }
    for (size_t i = last; i > first; --i) {
      if (borders_[i].kind >= BorderKind::kWord && Fits(first, i)) return i;
    }
    return last;
  }

  // What a chunk would be must be there, and, as counts need not grow evenly, fit.
  bool Fits(size_t first, size_t last) const {
    const Chunk chunk = Trim(borders_[first].at, borders_[last].at);
    return chunk.begin < chunk.end && Tokens(first, last) <= options_.max_tokens;
  }

  // Where the chunk behind [first, last) begins: within its overlap, or at `last`.
  size_t NextStart(size_t first, size_t last) const {
    size_t low = first + 1;
    size_t high = last;
    while (low < high && options_.overlap_tokens > 0) {
      const size_t middle = low + (high - low) / 2;
      if (Tokens(middle, last) <= options_.overlap_tokens) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    for (const BorderKind kind : {BorderKind::kSentence, BorderKind::kWord}) {
      for (size_t i = high; i < last; ++i) {
        if (borders_[i].kind >= kind) return i;
      }
    }
    return last;
  }

  const absl::string_view text_;
  const ChunkOptions options_;
  const TokenCounter& count_;
  const std::vector<Border> borders_;
};

}  // namespace

std::vector<Chunk> CutIntoChunks(absl::string_view text, const ChunkOptions& options,
                                 const TokenCounter& count_tokens) {
  if (options.max_tokens == 0 || count_tokens(text) <= options.max_tokens) {
    return {{0, text.size()}};
  }
  return Cutter(text, options, count_tokens).Run();
}

}  // namespace quiver::index
