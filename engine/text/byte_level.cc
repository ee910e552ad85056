#include "engine/text/byte_level.h"

#include <array>
#include <cstdint>

#include "engine/text/unicode.h"

namespace quiver {
namespace {

struct Alphabet {
  std::array<uint16_t, 256> point_of_byte;
  std::array<int16_t, 0x200> byte_of_point;
};

constexpr Alphabet MakeAlphabet() {
  Alphabet a{};
  for (auto& byte : a.byte_of_point) byte = -1;
  uint16_t moved = 0x100;
  for (int b = 0; b < 256; ++b) {
    const bool stays = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    a.point_of_byte[b] = stays ? static_cast<uint16_t>(b) : moved++;
    a.byte_of_point[a.point_of_byte[b]] = static_cast<int16_t>(b);
  }
  return a;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

bool DecodeByteLevel(absl::string_view token, std::string* bytes) {
  bytes->clear();
  const char* const end = token.data() + token.size();
  for (const char* p = token.data(); p != end;) {
    const uint32_t c = NextCodePoint(p);
    if (c >= kAlphabet.byte_of_point.size() || kAlphabet.byte_of_point[c] < 0) return false;
    bytes->push_back(static_cast<char>(kAlphabet.byte_of_point[c]));
  }
  return true;
}

std::string ByteLevelSpelling(unsigned char byte) {
  std::string spelling;
  AppendUtf8(kAlphabet.point_of_byte[byte], &spelling);
  return spelling;
}

}  // namespace quiver
