#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"
#include "server/hub/fetch_model.h"
#include "server/hub/hub_options.h"
#include "server/hub/model_name.h"
#include "tools/quiver/command_line.h"
#include "tools/quiver/find_model.h"
#include "tools/quiver/progress.h"

namespace quiver {
namespace {

struct FetchFlags {
  std::string model;
  std::string revision;
  std::string endpoint;
  std::string token_file;
  std::string cache_dir;
  int jobs = HubOptions().jobs;
  bool offline = false;
  bool update = false;
  bool json = false;
};

absl::StatusOr<HubOptions> OptionsOf(const FetchFlags& flags) {
  absl::StatusOr<HubOptions> options = HubOptionsFromEnvironment();
  if (!options.ok()) return options;
  if (!flags.endpoint.empty()) {
    absl::StatusOr<std::string> endpoint = CheckEndpoint("--endpoint", flags.endpoint);
    if (!endpoint.ok()) return endpoint.status();
    options->endpoint = *std::move(endpoint);
  }
  if (!flags.token_file.empty()) {
    absl::StatusOr<std::string> token = ReadTokenFile("--token-file", flags.token_file);
    if (!token.ok()) return token.status();
    options->token = *std::move(token);
  }
  if (!flags.cache_dir.empty()) options->cache_dir = flags.cache_dir;
  options->jobs = flags.jobs;
  options->offline |= flags.offline;
  options->update = flags.update;
  if (options->update && options->offline) {
    return absl::InvalidArgumentError("--update needs the network, which HF_HUB_OFFLINE forbids");
  }
  return options;
}

absl::StatusOr<std::string> Fetch(const FetchFlags& flags, const ModelName& name) {
  const absl::StatusOr<HubOptions> options = OptionsOf(flags);
  if (!options.ok()) return options.status();
  Progress progress;
  return FetchModel(*options, name, ShowFetching(&progress));
}

int Report(const FetchFlags& flags, const ModelName& name, const std::string& dir) {
  if (!flags.json) return Print(dir + "\n");
  nlohmann::ordered_json json = {{"dir", dir}};
  if (!name.repo.empty()) {
    json["model"] = name.repo;
    json["revision"] = name.revision;
    json["commit"] = std::filesystem::path(dir).filename().string();
  }
  return Print(json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

int Run(const FetchFlags& flags) {
  absl::string_view path = flags.model;
  absl::ConsumePrefix(&path, "file://");
  std::error_code ignored;
  if (std::filesystem::is_directory(std::string(path), ignored)) {
    return Report(flags, {.repo = "", .revision = ""}, std::string(path));
  }
  absl::StatusOr<ModelName> name = ParseModelName(flags.model);
  if (!name.ok()) {
    Say(absl::StrCat("NAME: there is no directory '", path, "', and ", name.status().message()));
    return kExitUsage;
  }
  const bool names_revision = absl::StrContains(flags.model, '@');
  if (!flags.revision.empty() && names_revision && flags.revision != name->revision) {
    Say(absl::StrCat("--revision: NAME already says '", name->revision, "', not '", flags.revision,
                     "'"));
    return kExitUsage;
  }
  if (!flags.revision.empty()) {
    if (const absl::Status status = CheckRevision(flags.revision); !status.ok()) {
      Say(absl::StrCat("--revision: ", status.message()));
      return kExitUsage;
    }
    name->revision = flags.revision;
  }
  const absl::StatusOr<std::string> dir = Fetch(flags, *name);
  if (absl::IsInvalidArgument(dir.status())) {
    Say(dir.status().message());
    return kExitUsage;
  }
  if (!dir.ok()) return ReportFailure(dir.status());
  return Report(flags, *name, *dir);
}

}  // namespace

void AddFetchCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand("fetch", "Get a model from a Hugging Face hub");
  command->footer(
      "Only the files that serving takes, into the cache that the hub's own tools use; what is "
      "there\n"
      "already, from whichever tool, is not fetched again. The model's directory is printed:\n"
      "  quiver-server --model \"$(quiver fetch Qwen/Qwen3-Embedding-0.6B)\"\n"
      "An interrupted run is taken up where it was. The environment, as the hub's tools read it:\n"
      "HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_CACHE, HF_HOME, HF_HUB_OFFLINE, and "
      "HTTPS_PROXY\n"
      "and the like. A directory, or file://DIR, is printed as it is.");
  auto flags = std::make_shared<FetchFlags>();
  command->add_option("NAME", flags->model, "ORGANIZATION/NAME or ORGANIZATION/NAME@REVISION")
      ->required();
  command->add_option("--revision", flags->revision, "Branch, tag or commit (default: main)")
      ->type_name("REVISION");
  command->add_option("--endpoint", flags->endpoint, "Hub (default: https://huggingface.co)")
      ->type_name("URL");
  command->add_option("--token-file", flags->token_file, "File with the token to send")
      ->type_name("FILE");
  command
      ->add_option("--cache-dir", flags->cache_dir,
                   "The hub's cache (default: ~/.cache/huggingface/hub)")
      ->type_name("DIR");
  command->add_option("--jobs", flags->jobs, "Files under way at a time")
      ->check(CLI::Range(1, 64))
      ->type_name("N")
      ->capture_default_str();
  CLI::Option* offline = command->add_flag("--offline", flags->offline,
                                           "Do not use the network: only look in the cache");
  command
      ->add_flag("--update", flags->update,
                 "Ask the hub what the revision is now, even if all of what it was is there")
      ->excludes(offline);
  command->add_flag("--json", flags->json, "One JSON object: dir, model, revision, commit");
  command->callback([flags, exit_code] { *exit_code = Run(*flags); });
}

}  // namespace quiver
