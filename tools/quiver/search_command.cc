#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/thread_pool.h"
#include "quiver/client.h"
#include "tools/index/pg_connection.h"
#include "tools/index/search_index.h"
#include "tools/quiver/command_line.h"
#include "tools/quiver/connection.h"
#include "tools/quiver/input_source.h"
#include "tools/quiver/json_text.h"
#include "tools/quiver/output_file.h"
#include "tools/quiver/rpc_status.h"
#include "tools/quiver/search_writer.h"
#include "tools/quiver/work_flags.h"

namespace quiver {
namespace {

constexpr int kMaxTop = 1000;
// Queries that are embedded, and compared to the index, at once.
constexpr size_t kQueriesAtOnce = 256;

struct SearchFlags {
  std::string index;
  std::string table;
  std::vector<std::string> servers;
  ConnectionFlags connection;
  client::EmbedOptions embed;
  std::string truncate;
  int top = 10;
  bool json = false;
  bool trec = false;
  std::vector<std::string> texts;
  std::string input;

  SearchFormat format() const {
    return json ? SearchFormat::kJson : trec ? SearchFormat::kTrec : SearchFormat::kText;
  }
};

class SearchRun {
 public:
  SearchRun(const SearchFlags& flags, Client* client, index::SearchIndex* index, OutputFile* out)
      : flags_(flags), client_(client), index_(index), out_(out), options_(flags.embed) {
    options_.dimensions = index->dimensions();
  }

  // All queries of `source`. Those that fail are told, and counted.
  absl::Status Run(InputSource* source) {
    std::vector<InputItem> queries;
    for (InputItem item; source->Next(&item);) {
      if (item.text.ok()) {
        queries.push_back(std::move(item));
      } else {
        Fail(item, item.text.status());
      }
      if (queries.size() < kQueriesAtOnce && !source->WouldWait()) continue;
      if (absl::Status status = Answer(std::exchange(queries, {})); !status.ok()) return status;
    }
    if (absl::Status status = Answer(std::move(queries)); !status.ok()) return status;
    return source->status();
  }

  int failures() const { return failures_; }

 private:
  void Fail(const InputItem& query, const absl::Status& status) {
    ++failures_;
    Say(absl::StrCat(query.place, ": ", ErrorText(status)));
  }

  absl::Status Answer(std::vector<InputItem> queries) {
    if (queries.empty()) return absl::OkStatus();
    std::vector<client::Input> inputs;
    for (const InputItem& query : queries) inputs.emplace_back(*query.text);
    const absl::StatusOr<client::EmbedReply> reply = client_->Embed(std::move(inputs), options_);
    if (!reply.ok()) return FromClientStatus(reply.status());
    std::vector<const InputItem*> embedded;
    std::vector<float> vectors;
    for (size_t i = 0; i < queries.size(); ++i) {
      if (const auto& result = reply->results[i]; result.ok()) {
        const std::vector<float> vector = result->Floats();
        vectors.insert(vectors.end(), vector.begin(), vector.end());
        embedded.push_back(&queries[i]);
      } else {
        Fail(queries[i], FromClientStatus(result.status()));
      }
    }
    if (embedded.empty()) return absl::OkStatus();
    if (reply->space.fingerprint != index_->fingerprint()) {
      return absl::FailedPreconditionError(
          absl::StrCat(flags_.index, ": its vectors are of the space ", index_->fingerprint(),
                       ", the server's (model ", reply->model, ") of ", reply->space.fingerprint,
                       "; they cannot be compared"));
    }
    const auto hits = index_->Search(vectors, flags_.top);
    if (!hits.ok()) return hits.status();
    const int columns = TerminalColumns();
    for (size_t i = 0; i < embedded.size(); ++i) {
      const auto text = FormatHits(flags_.format(), *embedded[i], (*hits)[i], columns);
      if (!text.ok()) return text.status();
      if (absl::Status status = out_->Write(*text); !status.ok()) return status;
    }
    return out_->Flush();
  }

  const SearchFlags& flags_;
  Client* const client_;
  index::SearchIndex* const index_;
  OutputFile* const out_;
  client::EmbedOptions options_;
  int failures_ = 0;
};

int Run(const SearchFlags& flags) {
  absl::StatusOr<std::unique_ptr<InputSource>> source =
      flags.input.empty() ? SourceOfTexts(flags.texts)
                          : SourceOfFile(flags.input, InputFormat::kDetect);
  if (!source.ok()) return ReportFailure(source.status());
  cpu::ThreadPool pool(cpu::AvailableCores());
  auto index = index::IsPgUrl(flags.index) ? index::OpenPgIndex(flags.index, flags.table)
                                           : index::OpenFileIndex(flags.index, &pool);
  if (!index.ok()) return ReportFailure(index.status());
  auto connection = flags.connection.Read();
  if (!connection.ok()) return ReportFailure(connection.status());
  auto client = Client::Create({.servers = flags.servers, .connection = *std::move(connection)});
  if (!client.ok()) return ReportFailure(FromClientStatus(client.status()));
  auto out = OutputFile::Open("-", OutputFile::Mode::kAsItGoes);
  if (!out.ok()) return ReportFailure(out.status());

  SearchRun run(flags, client->get(), index->get(), out->get());
  absl::Status status = run.Run(source->get());
  if (status.ok()) status = (*out)->Close();
  if (!status.ok()) return ReportFailure(status);
  return run.failures() > 0 ? kExitFailure : kExitOk;
}

}  // namespace

void AddSearchCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand("search", "Find the texts of an index nearest to others");
  command->footer(
      "The index is what `quiver index` wrote: a file of vectors, with its .rows.jsonl and\n"
      ".meta.json beside it, or a table in PostgreSQL. Scores are cosines. A query that fails is\n"
      "told on standard error; the others go on, and the exit code is 1.");
  auto flags = std::make_shared<SearchFlags>();
  CLI::Option* texts =
      command->add_option("texts", flags->texts, "Queries, one an argument")->type_name("TEXT");
  command
      ->add_option("--input", flags->input,
                   "Read queries from this file, or - for standard input, one a line, or JSONL\n"
                   "with \"text\" and \"id\"")
      ->type_name("FILE")
      ->excludes(texts);
  command
      ->add_option("--index", flags->index,
                   "The index: a .npy, .fbin, .f16bin, .i8bin or .fvecs file, or\n"
                   "postgresql://USER@HOST/DATABASE (with PGPASSWORD or ~/.pgpass)")
      ->type_name("INDEX")
      ->required();
  command->add_option("--table", flags->table, "The table in PostgreSQL")->type_name("NAME");
  CLI::Option* server =
      command
          ->add_option("--server", flags->servers,
                       "Servers that embed the queries; of the index's vector space")
          ->type_name("HOST:PORT")
          ->required();
  // One value a flag, so that queries may follow.
  server->allow_extra_args(false);
  flags->connection.AddTo(command, server);
  CLI::Option* prompt = command
                            ->add_option("--prompt,--prompt-name", flags->embed.prompt_name,
                                         "Put this prompt of the model before each query")
                            ->type_name("NAME")
                            ->group(kWorkGroup);
  command
      ->add_option("--instruction", flags->embed.instruction,
                   "Put the model's instruction prompt with this task before each query")
      ->type_name("TEXT")
      ->excludes(prompt)
      ->group(kWorkGroup);
  command
      ->add_option("--truncate", flags->truncate,
                   "What becomes of a query that is too long: it fails (none), keeps its\n"
                   "beginning (right) or its end (left); default: the server's choice")
      ->check(CLI::IsMember({"none", "right", "left"}))
      ->type_name("SIDE")
      ->group(kWorkGroup);
  command->add_option("--top", flags->top, "Rows to find for each query")
      ->check(CLI::Range(1, kMaxTop))
      ->type_name("N")
      ->capture_default_str()
      ->group(kWorkGroup);
  CLI::Option* json =
      command->add_flag("--json", flags->json, "An object a query, with whole texts")
          ->group(kOutputGroup);
  command
      ->add_flag("--trec", flags->trec,
                 "A run as trec_eval reads it: a document stands once, by its best chunk")
      ->excludes(json)
      ->group(kOutputGroup);
  command->callback([flags, exit_code] {
    if (flags->texts.empty() && flags->input.empty()) {
      throw CLI::ValidationError("give queries as arguments, or --input FILE (- for stdin)");
    }
    if (index::IsPgUrl(flags->index) == flags->table.empty()) {
      throw CLI::ValidationError("--table", "goes with --index postgresql://..., and only with it");
    }
    if (flags->truncate == "none") flags->embed.truncation = client::Truncation::kNone;
    if (flags->truncate == "right") flags->embed.truncation = client::Truncation::kRight;
    if (flags->truncate == "left") flags->embed.truncation = client::Truncation::kLeft;
    *exit_code = Run(*flags);
  });
}

}  // namespace quiver
