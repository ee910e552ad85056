#ifndef QUIVER_TOOLS_QUIVER_INDEX_FLAGS_H_
#define QUIVER_TOOLS_QUIVER_INDEX_FLAGS_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "quiver/client_types.h"
#include "tools/index/document_source.h"
#include "tools/index/index_sink.h"
#include "tools/index/indexer.h"
#include "tools/quiver/connection.h"

namespace CLI {
class App;
}

namespace quiver {

// The flags of `quiver index`.
struct IndexFlags {
  std::string input;
  std::string input_format = "auto";
  std::string id_field;
  std::string text = "{text}";

  std::vector<std::string> servers;
  ConnectionFlags connection;
  double wait_seconds = 0;
  double retry_seconds = 300;

  client::EmbedOptions embed;
  std::string truncate;
  std::string output_type;
  index::ChunkOptions chunks;
  std::string tokenizer_dir;
  index::Shard shard;

  std::string output;
  // Of an output in PostgreSQL.
  std::string table;
  bool no_hnsw = false;
  bool no_text = false;
  bool overwrite = false;
  bool allow_rejects = false;
  bool json = false;

  void AddTo(CLI::App* command);
  // After parsing: throws CLI::ValidationError if flags do not go together. Fills in what follows
  // from others.
  void Complete();

  index::DocumentOptions Documents() const;
  std::unique_ptr<index::IndexSink> MakeSink() const;
  // What decides the output, with what the server and the tokenizer are.
  absl::StatusOr<index::RunIdentity> Identity(const index::IndexSpace& space,
                                              const std::string& tokenizer_fingerprint) const;

 private:
  void AddInputTo(CLI::App* command);
  void AddServerTo(CLI::App* command);
  void AddWorkTo(CLI::App* command);
  void AddOutputTo(CLI::App* command);
  void CompleteFile();
  void CompleteDatabase();
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_INDEX_FLAGS_H_
