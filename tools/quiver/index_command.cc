#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "engine/text/tokenizer.h"
#include "quiver/client.h"
#include "tools/index/pg_connection.h"
#include "tools/index/row_format.h"
#include "tools/quiver/command_line.h"
#include "tools/quiver/index_flags.h"
#include "tools/quiver/index_report.h"
#include "tools/quiver/rpc_status.h"

namespace quiver {
namespace {

constexpr absl::Duration kAnswerTime = absl::Seconds(10);
// Sendings of an input whose servers break off before the run gives up: each may be the last of a
// server that it brings down.
constexpr int kMaxSends = 100;

class IndexRun {
 public:
  explicit IndexRun(const IndexFlags& flags) : flags_(flags) {}

  absl::Status Run() {
    absl::StatusOr<std::unique_ptr<index::DocumentSource>> source =
        index::OpenDocuments(flags_.Documents());
    if (!source.ok()) return source.status();
    if (absl::Status status = LoadTokenizer(); !status.ok()) return status;
    if (absl::Status status = Connect(); !status.ok()) return FromClientStatus(status);
    const std::string tokenizer = tokenizer_ == nullptr ? "" : tokenizer_->fingerprint();
    const absl::StatusOr<index::RunIdentity> run = flags_.Identity(space_, tokenizer);
    if (!run.ok()) return run.status();

    const std::unique_ptr<index::IndexSink> sink = flags_.MakeSink();
    const absl::StatusOr<index::IndexSink::State> state = sink->Begin(space_, *run);
    if (!state.ok()) return state.status();
    rejects_place_ = sink->RejectsPlace();
    const index::Checkpoint start = state->checkpoint.value_or(index::Checkpoint{.run = *run});
    progress_.done = start;
    if (state->complete) {
      Say(absl::StrCat(flags_.output, ": is complete already"));
      return absl::OkStatus();
    }
    if (start.documents > 0) Say(absl::StrCat("going on behind document ", start.documents));
    index::Indexer indexer(Options(), std::move(stream_), source->get(), sink.get(), VectorBytes());
    const absl::Status status =
        indexer.Run(start, [&](const index::IndexProgress& progress) { report_.Update(progress); });
    progress_ = indexer.progress();
    return FromClientStatus(status);
  }

  // Reports what came of it: the exit code.
  int End(const absl::Status& status) {
    report_.End();
    const bool begun = !rejects_place_.empty();
    if (begun) Say(report_.Summary(progress_));
    int code = kExitOk;
    if (!status.ok()) {
      code = ReportFailure(status);
    } else if (progress_.done.rejects > 0) {
      Say(absl::StrCat(progress_.done.rejects, " rejected: see ", rejects_place_));
      if (!flags_.allow_rejects) code = kExitFailure;
    }
    if (flags_.json && Print(report_.SummaryJson(progress_, status.ok())) != kExitOk) {
      return kExitFailure;
    }
    return code;
  }

 private:
  absl::Status LoadTokenizer() {
    if (flags_.chunks.max_tokens == 0) return absl::OkStatus();
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
        Tokenizer::Load(flags_.tokenizer_dir + "/tokenizer.json");
    if (!tokenizer.ok()) return tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    return absl::OkStatus();
  }

  absl::Status Connect() {
    absl::StatusOr<client::ConnectionOptions> connection = flags_.connection.Read();
    if (!connection.ok()) return connection.status();
    client::ClientOptions options = {.servers = flags_.servers, .connection = *connection};
    // Every wait is max_wait at most, and half of it in the mean.
    options.retry.max_tries +=
        static_cast<int>(2 * flags_.retry_seconds / absl::ToDoubleSeconds(options.retry.max_wait));
    absl::StatusOr<std::unique_ptr<Client>> client = Client::Create(std::move(options));
    if (!client.ok()) return client.status();
    client_ = *std::move(client);
    const absl::StatusOr<client::ModelInfo> info = client_->GetModelInfo(
        {.timeout = std::max(kAnswerTime, absl::Seconds(flags_.wait_seconds))});
    if (!info.ok()) return info.status();
    absl::StatusOr<std::unique_ptr<client::EmbedStream>> stream =
        client_->OpenStream(flags_.embed, {.max_sends = kMaxSends});
    if (!stream.ok()) return stream.status();
    stream_ = *std::move(stream);
    space_ = {.model = info->model,
              .space = stream_->space(),
              .dimensions = flags_.embed.dimensions.value_or(info->default_dimensions),
              .type = flags_.embed.type};
    return absl::OkStatus();
  }

  index::IndexerOptions Options() const {
    index::IndexerOptions options = {.shard = flags_.shard, .chunks = flags_.chunks};
    if (tokenizer_ != nullptr) {
      options.count_tokens = [tokenizer = tokenizer_.get(),
                              ids = std::vector<TokenId>()](absl::string_view text) mutable {
        ids.clear();
        // Texts are UTF-8, and nothing else can be wrong.
        return tokenizer->Encode(text, &ids).ok() ? ids.size() : 0;
      };
    }
    return options;
  }

  size_t VectorBytes() const { return static_cast<size_t>(space_.dimensions) * sizeof(float); }

  const IndexFlags& flags_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Client> client_;
  // Before the client ends.
  std::unique_ptr<client::EmbedStream> stream_;
  index::IndexSpace space_;
  IndexReport report_;
  index::IndexProgress progress_;
  // Empty until the output is open.
  std::string rejects_place_;
};

}  // namespace

void AddIndexCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand("index", "Turn a collection into an index of vectors");
  command->footer(
      "Documents go to the servers over streams, vectors to the output in the documents' order.\n"
      "A run that was interrupted, however, goes on when the same command is given again; the\n"
      "output is then that of a run that was not. Documents that cannot be embedded go to\n"
      ".rejects.jsonl, or to the table quiver_rejects, with the reason, the others go on, and the\n"
      "exit code is 1 unless --allow-rejects is given.");
  auto flags = std::make_shared<IndexFlags>();
  flags->AddTo(command);
  command->callback([flags, exit_code] {
    flags->Complete();
    IndexRun run(*flags);
    const absl::Status status = run.Run();
    *exit_code = run.End(status);
  });
}

}  // namespace quiver
