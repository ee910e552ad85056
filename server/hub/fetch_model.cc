#include "server/hub/fetch_model.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <mutex>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"
#include "server/hub/blob_download.h"
#include "server/hub/hub_cache.h"
#include "server/hub/hub_http.h"
#include "server/hub/model_parts.h"

namespace quiver {
namespace {

struct Revision {
  std::string commit;
  std::set<std::string> files;
};

absl::StatusOr<Revision> ParseRevision(const std::string& body, const std::string& what) {
  const nlohmann::json json = nlohmann::json::parse(body, nullptr, /*allow_exceptions=*/false);
  Revision revision;
  if (json.is_object() && json.contains("sha") && json["sha"].is_string()) {
    revision.commit = json["sha"].get<std::string>();
  }
  if (!IsCommit(revision.commit) || !json.contains("siblings") || !json["siblings"].is_array()) {
    return absl::FailedPreconditionError(
        absl::StrCat(what, ": the hub's answer does not name a commit and its files"));
  }
  for (const nlohmann::json& file : json["siblings"]) {
    if (file.is_object() && file.contains("rfilename") && file["rfilename"].is_string()) {
      revision.files.insert(file["rfilename"].get<std::string>());
    }
  }
  return revision;
}

absl::StatusOr<Revision> AskRevision(const HubOptions& options, const HubHttp& http,
                                     const ModelName& name) {
  const std::string what = absl::StrCat(name.repo, "@", name.revision);
  const std::string url =
      absl::StrCat(options.endpoint, "/api/models/", name.repo, "/revision/",
                   absl::StrReplaceAll(name.revision, {{"/", "%2F"}, {"+", "%2B"}}));
  absl::StatusOr<Revision> revision;
  const absl::Status status = Retry(options, [&](double* wait_seconds, bool*) -> absl::Status {
    const absl::StatusOr<HubReply> reply = http.Get(url);
    if (!reply.ok()) return reply.status();
    if (reply->code != 200) {
      *wait_seconds = RetryAfterSeconds(*reply);
      return HubError(options, *reply, what);
    }
    revision = ParseRevision(reply->body, what);
    return revision.status();
  });
  if (!status.ok()) return status;
  return revision;
}

// Fetches files side by side, and adds up what of them is there.
class Transfer {
 public:
  Transfer(const HubOptions& options, const HubHttp& http, const HubCache& cache, std::string repo,
           std::string commit, const FetchObserver& observer)
      : options_(options),
        http_(http),
        cache_(cache),
        repo_(std::move(repo)),
        commit_(std::move(commit)),
        observer_(observer) {}

  // The first error, after which no other file is begun.
  absl::Status Run(const std::vector<std::string>& names) {
    progress_.files = static_cast<int>(names.size());
    std::vector<HubFile> files(names.size());
    absl::Status status = ForEach(names.size(), [&](size_t i) {
      const absl::Status found = FindHubFile(options_, http_, repo_, commit_, names[i], &files[i]);
      const std::lock_guard<std::mutex> lock(mutex_);
      if (found.ok()) progress_.bytes += std::max<int64_t>(files[i].bytes, 0);
      return found;
    });
    if (!status.ok()) return status;
    // The largest first, so that it is not what is left alone at the end.
    std::sort(files.begin(), files.end(),
              [](const HubFile& a, const HubFile& b) { return a.bytes > b.bytes; });
    there_.assign(files.size(), 0);
    return ForEach(files.size(), [&](size_t i) {
      const absl::Status fetched = DownloadBlob(options_, http_, cache_, commit_, files[i],
                                                [&](int64_t bytes) { Report(i, bytes); });
      if (fetched.ok()) {
        const std::lock_guard<std::mutex> lock(mutex_);
        ++progress_.files_done;
        if (observer_) observer_(progress_);
      }
      return fetched;
    });
  }

 private:
  void Report(size_t file, int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    progress_.bytes_done += bytes - there_[file];
    there_[file] = bytes;
    if (observer_) observer_(progress_);
  }

  template <typename Work>
  absl::Status ForEach(size_t count, Work&& work) {
    std::atomic<size_t> next{0};
    absl::Status first;
    std::mutex first_mutex;
    const auto run = [&] {
      for (size_t i = next++; i < count; i = next++) {
        const absl::Status status = work(i);
        if (status.ok()) continue;
        const std::lock_guard<std::mutex> lock(first_mutex);
        first.Update(status);
        next = count;
      }
    };
    std::vector<std::thread> threads;
    const size_t jobs = std::min(count, static_cast<size_t>(std::max(options_.jobs, 1)));
    for (size_t i = 0; i < jobs; ++i) threads.emplace_back(run);
    for (std::thread& thread : threads) thread.join();
    return first;
  }

  const HubOptions& options_;
  const HubHttp& http_;
  const HubCache& cache_;
  const std::string repo_;
  const std::string commit_;
  const FetchObserver& observer_;
  std::mutex mutex_;
  FetchProgress progress_;
  std::vector<int64_t> there_;  // bytes of each file
};

// The directory that `model` is, or the name.
absl::StatusOr<std::variant<std::string, ModelName>> PlaceOf(absl::string_view model) {
  absl::string_view path = model;
  const bool is_url = absl::ConsumePrefix(&path, "file://");
  std::error_code ignored;
  if (std::filesystem::is_directory(std::string(path), ignored)) return std::string(path);
  const bool is_path = is_url || absl::StartsWith(model, "/") || absl::StartsWith(model, ".") ||
                       absl::StartsWith(model, "~");
  absl::StatusOr<ModelName> name = ParseModelName(model);
  if (!is_path && name.ok()) return *std::move(name);
  return absl::InvalidArgumentError(
      absl::StrCat("there is no directory '", path, "'",
                   is_path ? "" : absl::StrCat(", and ", name.status().message())));
}

}  // namespace

absl::StatusOr<std::string> FetchModel(const HubOptions& options, const ModelName& name,
                                       const FetchObserver& observer) {
  const HubCache cache(options.cache_dir, name.repo);
  const std::optional<std::string> known = cache.FindCommit(name.revision);
  if (known.has_value() && (!options.update || options.offline)) {
    const CachedParts parts = FindParts(cache, *known);
    const bool is_enough = parts.holding == Holding::kEnough && options.offline;
    if (parts.holding == Holding::kWhole || is_enough) return cache.SnapshotDir(*known);
    if (options.offline) {
      return absl::NotFoundError(absl::StrCat(name.repo, "@", name.revision, " in ",
                                              options.cache_dir, " lacks ", parts.file,
                                              ", and fetching is off (--offline, HF_HUB_OFFLINE)"));
    }
  } else if (options.offline) {
    return absl::NotFoundError(absl::StrCat(name.repo, "@", name.revision, " is not in ",
                                            options.cache_dir,
                                            ", and fetching is off (--offline, HF_HUB_OFFLINE)"));
  }

  const HubHttp http(options);
  absl::StatusOr<Revision> revision = AskRevision(options, http, name);
  if (!revision.ok()) return revision.status();
  absl::StatusOr<ModelParts> parts = ChooseParts(revision->files);
  if (!parts.ok()) {
    return absl::Status(parts.status().code(),
                        absl::StrCat(name.repo, "@", name.revision, " ", parts.status().message()));
  }
  if (absl::Status status = cache.Prepare(); !status.ok()) return status;
  std::vector<std::string> missing;
  for (std::string& file : parts->present) {
    if (!cache.Has(revision->commit, file)) missing.push_back(std::move(file));
  }
  absl::Status status =
      Transfer(options, http, cache, name.repo, revision->commit, observer).Run(missing);
  if (!status.ok()) return status;
  absl::Status noted;
  for (const std::string& file : parts->absent) {
    noted.Update(cache.MarkAbsent(revision->commit, file));
  }
  // Last, so that who finds the revision finds its files.
  if (noted.ok() && !IsCommit(name.revision)) {
    noted = cache.SetCommit(name.revision, revision->commit);
  }
  // Where all was there a cache may be one that cannot be written: the hub is asked again next
  // time.
  if (!noted.ok() && !missing.empty()) return noted;
  return cache.SnapshotDir(revision->commit);
}

absl::StatusOr<ResolvedModel> ResolveModel(absl::string_view model, const FetchObserver& observer) {
  absl::StatusOr<std::variant<std::string, ModelName>> place = PlaceOf(model);
  if (!place.ok()) return place.status();
  if (auto* dir = std::get_if<std::string>(&*place)) return ResolvedModel{std::move(*dir), ""};
  ModelName& name = std::get<ModelName>(*place);
  const absl::StatusOr<HubOptions> options = HubOptionsFromEnvironment();
  if (!options.ok()) return options.status();
  absl::StatusOr<std::string> dir = FetchModel(*options, name, observer);
  if (absl::IsNotFound(dir.status())) {
    return absl::NotFoundError(absl::StrCat("there is no directory '", model,
                                            "', and as a model's name: ", dir.status().message()));
  }
  if (!dir.ok()) return dir.status();
  return ResolvedModel{*std::move(dir), std::move(name.repo)};
}

absl::Status CheckModel(absl::string_view model) { return PlaceOf(model).status(); }

}  // namespace quiver
