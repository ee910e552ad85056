#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "tools/index/index_sink.h"

namespace quiver::index {

std::string DifferenceOfRuns(const RunIdentity& before, const RunIdentity& now) {
  using Json = nlohmann::json;
  if (before == now) return "";
  const Json was = Json::parse(before, nullptr, /*allow_exceptions=*/false);
  const Json is = Json::parse(now, nullptr, /*allow_exceptions=*/false);
  if (!was.is_object() || !is.is_object()) return "what the runs are cannot be compared";
  std::vector<std::string> parts;
  const auto compare = [&](const Json& names, bool only_new) {
    for (const auto& [name, unused] : names.items()) {
      if (only_new && was.contains(name)) continue;
      const std::string old_value = was.contains(name) ? was[name].dump() : "absent";
      const std::string new_value = is.contains(name) ? is[name].dump() : "absent";
      if (old_value == new_value) continue;
      parts.push_back(absl::StrCat(name, " was ", old_value, ", is ", new_value));
    }
  };
  compare(was, /*only_new=*/false);
  compare(is, /*only_new=*/true);
  return absl::StrJoin(parts, "; ");
}

}  // namespace quiver::index
