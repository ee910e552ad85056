#include "server/hub/model_parts.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"

namespace quiver {
namespace {

constexpr char kModules[] = "modules.json";
constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr absl::string_view kRequired[] = {"config.json", "tokenizer.json"};
constexpr absl::string_view kOptional[] = {kModules, "tokenizer_config.json",
                                           "sentence_bert_config.json",
                                           "config_sentence_transformers.json"};

// A name that is no path out of its folder, and that needs no escaping.
bool IsPlainName(absl::string_view name) {
  return !name.empty() && name.front() != '.' && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  });
}

// "1_Pooling": how sentence-transformers names the folder of a module.
bool IsModuleFolder(absl::string_view name) {
  return IsPlainName(name) && absl::ascii_isdigit(name.front()) && absl::StrContains(name, "_");
}

bool IsModuleConfig(absl::string_view file) {
  return absl::ConsumeSuffix(&file, "/config.json") && IsModuleFolder(file);
}

nlohmann::json ReadJson(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return nlohmann::json::parse(in, nullptr, /*allow_exceptions=*/false);
}

// The files that the snapshot's index says hold the weights; empty if it cannot be read.
std::set<std::string> Shards(const std::string& snapshot) {
  std::set<std::string> shards;
  const nlohmann::json index = ReadJson(absl::StrCat(snapshot, "/", kIndexFile));
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return shards;
  }
  for (const nlohmann::json& shard : index["weight_map"]) {
    if (!shard.is_string()) return {};
    shards.insert(shard.get<std::string>());
  }
  return shards;
}

// The configs of the pooling modules in the snapshot's modules.json.
std::set<std::string> PoolingConfigs(const std::string& snapshot) {
  std::set<std::string> configs;
  const nlohmann::json modules = ReadJson(absl::StrCat(snapshot, "/", kModules));
  if (!modules.is_array()) return configs;
  for (const nlohmann::json& module : modules) {
    if (!module.is_object()) continue;
    const auto type = module.find("type");
    const auto path = module.find("path");
    if (type == module.end() || !type->is_string() || path == module.end() || !path->is_string()) {
      continue;
    }
    const std::string folder = path->get<std::string>();
    if (absl::EndsWith(type->get<std::string>(), ".Pooling") && IsModuleFolder(folder)) {
      configs.insert(folder + "/config.json");
    }
  }
  return configs;
}

}  // namespace

absl::StatusOr<ModelParts> ChooseParts(const std::set<std::string>& files) {
  ModelParts parts;
  for (const absl::string_view file : kRequired) {
    if (files.count(std::string(file)) == 0) {
      return absl::NotFoundError(absl::StrCat("has no ", file, ", without which it is not served"));
    }
    parts.present.emplace_back(file);
  }
  for (const absl::string_view file : kOptional) {
    (files.count(std::string(file)) > 0 ? parts.present : parts.absent).emplace_back(file);
  }
  // One file of weights goes before shards, as it does where they are read.
  const bool single = files.count(kSingleFile) > 0;
  if (single) {
    parts.present.emplace_back(kSingleFile);
  } else if (files.count(kIndexFile) > 0) {
    parts.present.emplace_back(kIndexFile);
  } else {
    return absl::NotFoundError(absl::StrCat("has neither ", kSingleFile, " nor ", kIndexFile,
                                            ": weights in other forms are not served"));
  }
  for (const std::string& file : files) {
    const bool shard = !single && absl::EndsWith(file, ".safetensors") && IsPlainName(file);
    if (shard || IsModuleConfig(file)) parts.present.push_back(file);
  }
  return parts;
}

CachedParts FindParts(const HubCache& cache, absl::string_view commit) {
  const auto missing = [](absl::string_view file) {
    return CachedParts{Holding::kPart, std::string(file)};
  };
  for (const absl::string_view file : kRequired) {
    if (!cache.Has(commit, file)) return missing(file);
  }
  const std::string snapshot = cache.SnapshotDir(commit);
  if (!cache.Has(commit, kSingleFile)) {
    const std::set<std::string> shards = Shards(snapshot);
    if (shards.empty()) return missing(cache.Has(commit, kIndexFile) ? kIndexFile : kSingleFile);
    for (const std::string& shard : shards) {
      if (!cache.Has(commit, shard)) return missing(shard);
    }
  }
  for (const std::string& config : PoolingConfigs(snapshot)) {
    if (!cache.Has(commit, config)) return missing(config);
  }
  for (const absl::string_view file : kOptional) {
    if (!cache.Has(commit, file) && !cache.KnownAbsent(commit, file)) {
      return {Holding::kEnough, std::string(file)};
    }
  }
  return {Holding::kWhole, ""};
}

}  // namespace quiver
