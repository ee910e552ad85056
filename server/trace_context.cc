#include "server/trace_context.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace quiver {
namespace {

// "00-" trace "-" parent "-" flags; later versions may go on after another "-".
constexpr size_t kParentSize = 55;
constexpr size_t kTraceAt = 3;
constexpr size_t kSpanAt = 36;
constexpr size_t kFlagsAt = 53;
constexpr uint8_t kSampled = 0x01;

// The standard's limits, but for the length, of which it asks to pass on this much at least.
constexpr size_t kMaxStateMembers = 32;
constexpr size_t kMaxStateBytes = 512;
constexpr size_t kMaxStatePartBytes = 256;

// -1 unless it is a digit of lower case: others are not allowed.
int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

template <size_t n>
bool ReadHex(absl::string_view text, std::array<uint8_t, n>* out) {
  for (size_t i = 0; i < n; ++i) {
    const int high = HexDigit(text[2 * i]);
    const int low = HexDigit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    (*out)[i] = static_cast<uint8_t>(high * 16 + low);
  }
  return true;
}

template <size_t n>
std::string Hex(const std::array<uint8_t, n>& id) {
  if (id == std::array<uint8_t, n>{}) return "";
  return absl::BytesToHexString({reinterpret_cast<const char*>(id.data()), n});
}

template <size_t n>
std::array<uint8_t, n> RandomId() {
  static thread_local absl::InsecureBitGen random;
  std::array<uint8_t, n> id;
  do {
    for (size_t at = 0; at < n; at += sizeof(uint64_t)) {
      const uint64_t bits = absl::Uniform<uint64_t>(random);
      std::memcpy(id.data() + at, &bits, sizeof(bits));
    }
  } while (id == std::array<uint8_t, n>{});
  return id;
}

bool ParseParent(absl::string_view text, TraceContext* context) {
  if (text.size() < kParentSize || text[kTraceAt - 1] != '-' || text[kSpanAt - 1] != '-' ||
      text[kFlagsAt - 1] != '-') {
    return false;
  }
  std::array<uint8_t, 1> version, flags;
  if (!ReadHex(text, &version) || !ReadHex(text.substr(kTraceAt), &context->trace_id) ||
      !ReadHex(text.substr(kSpanAt), &context->parent_id) ||
      !ReadHex(text.substr(kFlagsAt), &flags)) {
    return false;
  }
  context->sampled = (flags[0] & kSampled) != 0;
  const bool is_whole = text.size() == kParentSize || (version[0] > 0 && text[kParentSize] == '-');
  return is_whole && version[0] != 0xff && context->trace_id != TraceId{} &&
         context->parent_id != SpanId{};
}

bool IsStateKey(absl::string_view key) {
  return !key.empty() && key.size() <= kMaxStatePartBytes &&
         (absl::ascii_islower(static_cast<unsigned char>(key[0])) ||
          absl::ascii_isdigit(static_cast<unsigned char>(key[0]))) &&
         key.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-*/@") ==
             absl::string_view::npos;
}

bool IsStateValue(absl::string_view value) {
  return !value.empty() && value.size() <= kMaxStatePartBytes &&
         std::all_of(value.begin(), value.end(), [](char c) {
           return absl::ascii_isprint(static_cast<unsigned char>(c)) && c != ',' && c != '=';
         });
}

bool IsTraceState(absl::string_view text) {
  if (text.size() > kMaxStateBytes) return false;
  std::vector<absl::string_view> keys;
  for (absl::string_view member : absl::StrSplit(text, ',')) {
    member = absl::StripAsciiWhitespace(member);
    if (member.empty()) continue;
    const size_t equals = member.find('=');
    if (equals == absl::string_view::npos) return false;
    const absl::string_view key = member.substr(0, equals);
    if (!IsStateKey(key) || !IsStateValue(member.substr(equals + 1)) ||
        std::find(keys.begin(), keys.end(), key) != keys.end()) {
      return false;
    }
    keys.push_back(key);
  }
  return keys.size() <= kMaxStateMembers;
}

}  // namespace

std::string HexId(const TraceId& id) { return Hex(id); }
std::string HexId(const SpanId& id) { return Hex(id); }

TraceId NewTraceId() { return RandomId<std::tuple_size_v<TraceId>>(); }
SpanId NewSpanId() { return RandomId<std::tuple_size_v<SpanId>>(); }

void TraceHeaders::AddParent(absl::string_view value) {
  if (++parents == 1) traceparent = std::string(absl::StripAsciiWhitespace(value));
}

void TraceHeaders::AddState(absl::string_view value) {
  absl::StrAppend(&tracestate, tracestate.empty() ? "" : ",", value);
}

TraceContext ContextUnder(const TraceHeaders& headers) {
  TraceContext context;
  if (headers.parents != 1 || !ParseParent(headers.traceparent, &context)) return {};
  if (IsTraceState(headers.tracestate)) context.tracestate = headers.tracestate;
  return context;
}

std::string TraceResponse(const TraceContext& context) {
  return absl::StrCat("00-", HexId(context.trace_id), "-", HexId(context.span_id),
                      context.sampled ? "-01" : "-00");
}

}  // namespace quiver
