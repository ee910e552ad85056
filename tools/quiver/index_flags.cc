#include "tools/quiver/index_flags.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "tools/index/file_sink.h"
#include "tools/index/pg_connection.h"
#include "tools/index/pg_sink.h"
#include "tools/index/row_format.h"
#include "tools/quiver/work_flags.h"

namespace quiver {
namespace {

using client::ElementType;
using index::DocumentFormat;

constexpr char kInputGroup[] = "Input";
constexpr char kServerGroup[] = "Server";
constexpr double kMaxSeconds = 1e6;
constexpr size_t kMaxChunkTokens = size_t{1} << 20;

constexpr std::pair<const char*, DocumentFormat> kFormats[] = {{"auto", DocumentFormat::kDetect},
                                                               {"jsonl", DocumentFormat::kJsonl},
                                                               {"csv", DocumentFormat::kCsv},
                                                               {"tsv", DocumentFormat::kTsv}};
constexpr ElementType kTypes[] = {ElementType::kFloat32, ElementType::kFloat16,
                                  ElementType::kBfloat16, ElementType::kInt8, ElementType::kBinary};

std::optional<index::Shard> ParseShard(const std::string& text) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('/', 1));
  index::Shard shard;
  if (!absl::SimpleAtoi(parts.first, &shard.index) ||
      !absl::SimpleAtoi(parts.second, &shard.count) || shard.index >= shard.count) {
    return std::nullopt;
  }
  return shard;
}

std::string CheckServer(std::string& server) {
  return server.find(':') == std::string::npos || server.back() == ':'
             ? absl::StrCat("must be HOST:PORT, is '", server, "'")
             : "";
}

}  // namespace

void IndexFlags::AddTo(CLI::App* command) {
  AddInputTo(command);
  AddServerTo(command);
  AddWorkTo(command);
  AddOutputTo(command);
}

void IndexFlags::AddInputTo(CLI::App* command) {
  command
      ->add_option("--input", input,
                   "A file (plain, gzip or zstd), a directory of text files, or - for\n"
                   "standard input")
      ->required()
      ->type_name("PATH")
      ->group(kInputGroup);
  command
      ->add_option("--input-format", input_format,
                   "jsonl, csv or tsv (RFC 4180, names in the first record); auto: by the\n"
                   "file's name, else jsonl")
      ->check(CLI::IsMember({"auto", "jsonl", "csv", "tsv"}))
      ->type_name("FORMAT")
      ->capture_default_str()
      ->group(kInputGroup);
  command
      ->add_option("--id-field", id_field,
                   "Field that names a document (default: id, or its number if there is none)")
      ->type_name("NAME")
      ->group(kInputGroup);
  command
      ->add_option("--text", text,
                   "The text, made of fields: '{title} {text}'. A field that is absent takes the\n"
                   "blanks behind it away; {{ and }} are braces")
      ->type_name("TEMPLATE")
      ->capture_default_str()
      ->group(kInputGroup);
  command
      ->add_option_function<std::string>(
          "--shard",
          [this](const std::string& value) {
            const std::optional<index::Shard> parsed = ParseShard(value);
            if (!parsed.has_value()) {
              throw CLI::ValidationError(
                  absl::StrCat("--shard must be INDEX/COUNT with INDEX < COUNT, is '", value, "'"));
            }
            shard = *parsed;
          },
          "Only the documents whose number modulo COUNT is INDEX, both counted from 0")
      ->type_name("INDEX/COUNT")
      ->group(kInputGroup);
}

void IndexFlags::AddServerTo(CLI::App* command) {
  CLI::Option* server =
      command
          ->add_option("--server", servers,
                       "Server to ask; repeat it for several. A name that stands for several\n"
                       "addresses is several servers")
          ->required()
          ->check(CLI::Validator(CheckServer, ""))
          ->take_all()
          ->type_name("HOST:PORT")
          ->group(kServerGroup);
  connection.AddTo(command, server);
  command
      ->add_option("--wait", wait_seconds,
                   "Wait this long for a server to be up at the start (default: do not wait)")
      ->check(CLI::Range(0.0, kMaxSeconds))
      ->type_name("SECONDS")
      ->group(kServerGroup);
  command
      ->add_option("--retry-for", retry_seconds,
                   "About how long no server may answer until the run gives up; the same command\n"
                   "goes on where it did")
      ->check(CLI::Range(0.0, kMaxSeconds))
      ->type_name("SECONDS")
      ->capture_default_str()
      ->group(kServerGroup);
}

void IndexFlags::AddWorkTo(CLI::App* command) {
  CLI::Option* prompt =
      command
          ->add_option("--prompt,--prompt-name", embed.prompt_name,
                       "Put this prompt of the model before each text ('' for none)")
          ->type_name("NAME")
          ->group(kWorkGroup);
  command
      ->add_option("--instruction", embed.instruction,
                   "Put the model's instruction prompt with this task before each text")
      ->excludes(prompt)
      ->type_name("TEXT")
      ->group(kWorkGroup);
  command
      ->add_option("--truncate", truncate,
                   "What becomes of a text that is too long: it is rejected (none), keeps its\n"
                   "beginning (right) or its end (left); default: the server's choice")
      ->check(CLI::IsMember({"none", "right", "left"}))
      ->type_name("SIDE")
      ->group(kWorkGroup);
  command
      ->add_option("--dimensions", embed.dimensions,
                   "Length of the vectors (default: the server's)")
      ->check(CLI::Range(1, 1 << 30))
      ->type_name("N")
      ->group(kWorkGroup);
  CLI::Option* chunk =
      command
          ->add_option("--chunk-tokens", chunks.max_tokens,
                       "Cut documents into chunks of at most so many tokens, at paragraphs,\n"
                       "sentences or words; prompt and special tokens come on top")
          ->check(CLI::Range(size_t{1}, kMaxChunkTokens))
          ->type_name("N")
          ->group(kWorkGroup);
  command
      ->add_option("--chunk-overlap", chunks.overlap_tokens,
                   "Tokens of a chunk's end that the next one begins with, at most (default: 0)")
      ->needs(chunk)
      ->type_name("N")
      ->group(kWorkGroup);
  CLI::Option* tokenizer =
      command
          ->add_option("--tokenizer", tokenizer_dir,
                       "Directory with the model's tokenizer.json, by which chunks are measured")
          ->needs(chunk)
          ->type_name("DIR")
          ->group(kWorkGroup);
  chunk->needs(tokenizer);
}

void IndexFlags::AddOutputTo(CLI::App* command) {
  command
      ->add_option("--output", output,
                   "Where vectors go: .npy, .fbin, .f16bin, .i8bin, .fvecs or .jsonl, what the\n"
                   "rows are beside it, to .rows.jsonl and .meta.json; or a database with\n"
                   "pgvector, postgresql://...")
      ->required()
      ->type_name("FILE|URL")
      ->group(kOutputGroup);
  command
      ->add_option("--table", table,
                   "Of a database: the table, made if it is missing. float32 goes into vector,\n"
                   "float16 into halfvec")
      ->type_name("[SCHEMA.]TABLE")
      ->group(kOutputGroup);
  command
      ->add_flag("--no-hnsw", no_hnsw,
                 "Of a database: do not make an HNSW index at the end if there is none")
      ->group(kOutputGroup);
  command
      ->add_option("--output-type", output_type,
                   "Type of elements, where the file has a choice (.npy, .jsonl): float32,\n"
                   "float16, bfloat16, int8, binary (default: the file's, else float32)")
      ->check(CLI::IsMember({"float32", "float16", "bfloat16", "int8", "binary"}))
      ->type_name("TYPE")
      ->group(kOutputGroup);
  command->add_flag("--no-text", no_text, "Leave texts out of the output")->group(kOutputGroup);
  command
      ->add_flag("--overwrite", overwrite,
                 "Begin anew where there is an index, or a part of one, already")
      ->group(kOutputGroup);
  command
      ->add_flag(
          "--allow-rejects", allow_rejects,
          "Exit with 0 although documents were rejected, for schedulers that would try again")
      ->group(kOutputGroup);
  command->add_flag("--json", json, "Print a summary as JSON to standard output at the end")
      ->group(kOutputGroup);
}

void IndexFlags::CompleteDatabase() {
  if (table.empty()) {
    throw CLI::ValidationError("--table", "must name a table where --output is a database");
  }
  if (no_text || overwrite) {
    throw CLI::ValidationError(no_text ? "--no-text" : "--overwrite",
                               "is for files, and --output is a database");
  }
  embed.type = output_type == index::TypeName(ElementType::kFloat16) ? ElementType::kFloat16
                                                                     : ElementType::kFloat32;
  if (!output_type.empty() && output_type != index::TypeName(embed.type)) {
    throw CLI::ValidationError(
        "--output-type", "must be float32 or float16 in a database, is '" + output_type + "'");
  }
}

void IndexFlags::CompleteFile() {
  const std::optional<index::RowFormat> format = index::FormatOfFile(output);
  if (!format.has_value()) {
    throw CLI::ValidationError("--output",
                               "must end in .npy, .fbin, .f16bin, .i8bin, .fvecs or .jsonl, or be "
                               "postgresql://..., is '" +
                                   output + "'");
  }
  if (!table.empty() || no_hnsw) {
    throw CLI::ValidationError(no_hnsw ? "--no-hnsw" : "--table",
                               "is for databases, and --output is a file");
  }
  // Whatever the output is called, its files have the same beginning.
  const std::filesystem::path stem = std::filesystem::path(output).replace_extension();
  for (const std::string& file :
       {output, stem.string() + ".rows.jsonl", stem.string() + ".rejects.jsonl"}) {
    std::error_code absent;
    if (std::filesystem::equivalent(input, file, absent)) {
      throw CLI::ValidationError("--output", absl::StrCat("would replace --input, ", input));
    }
  }
  embed.type = index::DefaultType(*format);
  for (const ElementType type : kTypes) {
    if (output_type == index::TypeName(type)) embed.type = type;
  }
  if (const absl::Status fits = index::CheckType(*format, embed.type); !fits.ok()) {
    throw CLI::ValidationError("--output-type", std::string(fits.message()));
  }
}

void IndexFlags::Complete() {
  if (index::IsPgUrl(output)) {
    CompleteDatabase();
  } else {
    CompleteFile();
  }
  if (truncate == "none") embed.truncation = client::Truncation::kNone;
  if (truncate == "right") embed.truncation = client::Truncation::kRight;
  if (truncate == "left") embed.truncation = client::Truncation::kLeft;
  if (chunks.max_tokens > 0 && chunks.overlap_tokens >= chunks.max_tokens) {
    throw CLI::ValidationError("--chunk-overlap",
                               absl::StrCat("must be less than --chunk-tokens, ", chunks.max_tokens,
                                            ", is ", chunks.overlap_tokens));
  }
  if (const auto parsed = index::TextTemplate::Parse(text); !parsed.ok()) {
    throw CLI::ValidationError("--text", std::string(parsed.status().message()));
  }
}

index::DocumentOptions IndexFlags::Documents() const {
  index::DocumentOptions options = {
      .path = input, .id_field = id_field, .text = *index::TextTemplate::Parse(text)};
  for (const auto& [name, format] : kFormats) {
    if (input_format == name) options.format = format;
  }
  return options;
}

std::unique_ptr<index::IndexSink> IndexFlags::MakeSink() const {
  if (index::IsPgUrl(output)) {
    return std::make_unique<index::PgSink>(
        index::PgSink::Options{.url = output, .table = table, .hnsw = !no_hnsw});
  }
  return std::make_unique<index::FileSink>(
      index::FileSink::Options{.path = output,
                               .format = *index::FormatOfFile(output),
                               .with_text = !no_text,
                               .overwrite = overwrite});
}

absl::StatusOr<index::RunIdentity> IndexFlags::Identity(
    const index::IndexSpace& space, const std::string& tokenizer_fingerprint) const {
  const absl::StatusOr<std::string> in = index::InputIdentity(input);
  if (!in.ok()) return in.status();
  const nlohmann::json run = {{"input", *in},
                              {"input_format", input_format},
                              {"id_field", id_field},
                              {"text", text},
                              {"shard", absl::StrCat(shard.index, "/", shard.count)},
                              {"chunk_tokens", chunks.max_tokens},
                              {"chunk_overlap", chunks.overlap_tokens},
                              {"tokenizer", tokenizer_fingerprint},
                              {"truncate", truncate},
                              // A database's URL may hold a password.
                              {"output", index::IsPgUrl(output) ? table : output},
                              {"with_text", !no_text},
                              {"output_type", index::TypeName(space.type)},
                              {"dimensions", space.dimensions},
                              {"vector_space", space.space.fingerprint},
                              {"prompt", space.space.prompt_fingerprint}};
  return run.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace quiver
