#include "engine/text/normalizer.h"

#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/text/json_fields.h"
#include "engine/text/unicode.h"

namespace quiver {

absl::StatusOr<Normalizer> Normalizer::Create(const nlohmann::json& section) {
  Normalizer normalizer;
  if (section.is_null()) return normalizer;
  JsonFields fields(section, "normalizer");
  const std::string type = fields.String("type", "");
  if (!fields.status().ok()) return fields.status();
  if (type == "NFC") {
    normalizer.kind_ = Kind::kNfc;
  } else if (type == "BertNormalizer") {
    normalizer.kind_ = Kind::kBert;
    BertOptions& bert = normalizer.bert_;
    bert.clean_text = fields.Bool("clean_text", true);
    bert.chinese_chars = fields.Bool("handle_chinese_chars", true);
    bert.lowercase = fields.Bool("lowercase", true);
    // Absent or null: as lowercase says.
    bert.strip_accents = fields.Bool("strip_accents", bert.lowercase);
  } else if (type == "Sequence") {
    const nlohmann::json* parts = fields.Array("normalizers");
    if (!fields.status().ok()) return fields.status();
    if (parts != nullptr && parts->size() > 1) {
      return absl::UnimplementedError("normalizer Sequence of more than one is not supported");
    }
    if (parts != nullptr && parts->size() == 1) return Create((*parts)[0]);
  } else {
    return absl::UnimplementedError(absl::StrCat("normalizer \"", type, "\" is not supported"));
  }
  if (!fields.status().ok()) return fields.status();
  return normalizer;
}

absl::string_view Normalizer::Normalize(absl::string_view text, std::string* scratch) const {
  switch (kind_) {
    case Kind::kNone:
      break;
    case Kind::kNfc:
      return NormalizeNfc(text, scratch);
    case Kind::kBert:
      NormalizeBert(text, scratch);
      return *scratch;
  }
  return text;
}

void Normalizer::NormalizeBert(absl::string_view text, std::string* out) const {
  out->clear();
  out->reserve(text.size() + text.size() / 8);
  const auto append_lower = [&](uint32_t c) {
    if (bert_.lowercase) {
      AppendLower(c, out);
    } else {
      AppendUtf8(c, out);
    }
  };
  // Code points of the decomposition that may still change places: marks since the last starter.
  std::vector<uint32_t> marks;
  const auto flush_marks = [&] {
    if (marks.size() > 1) SortCombiningMarks(marks.data(), marks.data() + marks.size());
    for (const uint32_t c : marks) {
      if (!(UnicodeFlags(c) & kNonspacingMark)) append_lower(c);
    }
    marks.clear();
  };
  std::vector<uint32_t> points;
  const auto append = [&](uint32_t c) {
    if (!bert_.strip_accents) {
      append_lower(c);
      return;
    }
    points.clear();
    AppendDecomposition(c, &points);
    for (const uint32_t d : points) {
      const auto& record = UnicodeRecord(d);
      if (record.combining_rank != 0) {
        marks.push_back(d);
        continue;
      }
      flush_marks();
      if (!(record.flags & kNonspacingMark)) append_lower(d);
    }
  };

  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p != end;) {
    const unsigned char byte = static_cast<unsigned char>(*p);
    // Printable ASCII, which is most of most text.
    if (byte >= 0x20 && byte < 0x7F) {
      if (!marks.empty()) flush_marks();
      const bool upper = bert_.lowercase && byte >= 'A' && byte <= 'Z';
      out->push_back(static_cast<char>(upper ? byte + ('a' - 'A') : byte));
      ++p;
      continue;
    }
    const uint32_t c = NextCodePoint(p);
    const uint16_t flags = UnicodeFlags(c);
    if (bert_.clean_text && (flags & (kBertControl | kBertSpace))) {
      if (!(flags & kBertControl)) append(' ');
      continue;
    }
    if (bert_.chinese_chars && (flags & kBertChinese)) {
      append(' ');
      append(c);
      append(' ');
    } else {
      append(c);
    }
  }
  flush_marks();
}

}  // namespace quiver
