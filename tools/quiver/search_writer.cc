#include "tools/quiver/search_writer.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/quiver/json_text.h"

namespace quiver {
namespace {

// Texts of a terminal so narrow are not worth cutting.
constexpr int kMinTextColumns = 20;

// Bytes of the UTF-8 sequence that begins with `lead`.
size_t SequenceLength(unsigned char lead) {
  return lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

// Of what a terminal shows for a sequence: Chinese, Japanese and Korean characters, and those past
// the basic plane, which stand from U+1100 on by and large, take two.
int ColumnsOf(absl::string_view sequence) {
  return static_cast<unsigned char>(sequence[0]) >= 0xE2 ? 2 : 1;
}

bool HasBlank(absl::string_view id) {
  return id.empty() ||
         std::any_of(id.begin(), id.end(), [](unsigned char c) { return absl::ascii_isspace(c); });
}

// A query's name as plain text: its id, else its number.
std::string NameOf(const InputItem& query) {
  if (query.id_json.empty()) return absl::StrCat(query.index);
  absl::string_view id = query.id_json;
  return std::string(id[0] == '"' ? id.substr(1, id.size() - 2) : id);
}

std::string FormatText(const InputItem& query, const std::vector<index::Hit>& hits, int columns) {
  std::string out = absl::StrCat(OneLine(*query.text, columns), "\n");
  for (size_t i = 0; i < hits.size(); ++i) {
    const index::Hit& hit = hits[i];
    std::string head = absl::StrFormat("%4d  %.4f  %s", i + 1, hit.score, OneLine(hit.id, 0));
    if (hit.chunk > 0) absl::StrAppend(&head, " #", hit.chunk);
    const int left = columns - static_cast<int>(head.size()) - 2;
    const std::string text = OneLine(hit.text, columns == 0 ? 0 : std::max(left, kMinTextColumns));
    absl::StrAppend(&out, head, text.empty() ? "" : "  ", text, "\n");
  }
  return out;
}

std::string FormatJson(const InputItem& query, const std::vector<index::Hit>& hits) {
  std::string out = "{";
  AppendJsonName(query, &out);
  out += ",\"hits\":[";
  for (size_t i = 0; i < hits.size(); ++i) {
    const index::Hit& hit = hits[i];
    absl::StrAppend(&out, i == 0 ? "" : ",", "{\"rank\":", i + 1, ",\"score\":");
    AppendJsonFloat(static_cast<float>(hit.score), &out);
    absl::StrAppend(&out, ",\"id\":", JsonString(hit.id), ",\"chunk\":", hit.chunk,
                    ",\"text\":", JsonString(hit.text), "}");
  }
  out += "]}\n";
  return out;
}

absl::StatusOr<std::string> FormatTrec(const InputItem& query,
                                       const std::vector<index::Hit>& hits) {
  const std::string name = NameOf(query);
  std::string out;
  std::set<absl::string_view> seen;
  for (const index::Hit& hit : hits) {
    if (!seen.insert(hit.id).second) continue;
    for (const absl::string_view id : {absl::string_view(name), absl::string_view(hit.id)}) {
      if (HasBlank(id)) {
        return absl::InvalidArgumentError(absl::StrCat("--trec: the id ", JsonString(id),
                                                       " is empty or has a blank; use --json"));
      }
    }
    absl::StrAppend(&out, name, " Q0 ", hit.id, " ", seen.size(),
                    absl::StrFormat(" %.7f quiver\n", hit.score));
  }
  return out;
}

}  // namespace

int TerminalColumns() {
  winsize size = {};
  if (isatty(STDOUT_FILENO) == 0 || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0) return 0;
  return size.ws_col;
}

std::string OneLine(absl::string_view text, int columns) {
  std::string out;
  // Where the ellipsis goes if the text turns out to be longer.
  size_t cut = 0;
  int used = 0;
  for (size_t i = 0; i < text.size();) {
    const absl::string_view sequence = text.substr(i, SequenceLength(text[i]));
    i += sequence.size();
    used += ColumnsOf(sequence);
    if (columns > 0 && used > columns) {
      out.resize(cut);
      return out + "…";
    }
    if (absl::ascii_iscntrl(static_cast<unsigned char>(sequence[0]))) {
      out += ' ';
    } else {
      out.append(sequence.data(), sequence.size());
    }
    if (used < columns) cut = out.size();
  }
  return out;
}

absl::StatusOr<std::string> FormatHits(SearchFormat format, const InputItem& query,
                                       const std::vector<index::Hit>& hits, int columns) {
  switch (format) {
    case SearchFormat::kText:
      return FormatText(query, hits, columns);
    case SearchFormat::kJson:
      return FormatJson(query, hits);
    case SearchFormat::kTrec:
      return FormatTrec(query, hits);
  }
  return absl::InternalError("unknown format");
}

}  // namespace quiver
