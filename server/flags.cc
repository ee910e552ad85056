#include "server/flags.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <istream>
#include <limits>
#include <memory>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "kernels/cpu/thread_pool.h"
#include "server/flag_values.h"
#include "server/otlp_options.h"
#include "server/version.h"

namespace quiver {
namespace {

constexpr char kProgram[] = "quiver-server";
constexpr int kMaxInt = std::numeric_limits<int>::max();
constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();

std::string EnvironmentName(absl::string_view flag) {
  std::string name = absl::StrReplaceAll(absl::StripPrefix(flag, "--"), {{"-", "_"}});
  absl::AsciiStrToUpper(&name);
  return absl::StrCat("QUIVER_", name);
}

// An empty variable counts as none.
std::string FromEnvironment(absl::string_view flag) {
  const char* value = std::getenv(EnvironmentName(flag).c_str());
  return value == nullptr ? "" : value;
}

// CLI11 lets the file go before the environment. Here a key of the file is passed over where the
// environment has one.
class FileBelowEnvironment : public CLI::ConfigTOML {
 public:
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> found = CLI::ConfigTOML::from_config(input);
    std::erase_if(found, [](const CLI::ConfigItem& item) {
      return item.parents.empty() && !FromEnvironment(item.name).empty();
    });
    return found;
  }
};

class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_option_opts(const CLI::Option* option) const override {
    const std::string type = option->get_type_name();
    return type.empty() ? "" : " " + type;
  }
  std::string make_option_desc(const CLI::Option* option) const override {
    std::string text = option->get_description();
    const std::string default_text = option->get_default_str();
    if (option->get_required()) {
      text += " (required)";
    } else if (!default_text.empty()) {
      absl::StrAppend(&text, " (default: ", default_text, ")");
    }
    if (!option->get_envname().empty()) absl::StrAppend(&text, " [", option->get_envname(), "]");
    return text;
  }
};

class Parser {
 public:
  Parser(ServerOptions* options, absl::Span<const char* const> args)
      : args_(args.begin(), args.end()),
        app_("Serves text embeddings over gRPC and OpenAI's HTTP API, with health and metrics.",
             kProgram) {
    app_.formatter(std::make_shared<HelpFormatter>());
    AddModel(&options->embedder, options);
    AddDevice(&options->embedder);
    AddBatching(&options->embedder);
    AddNetwork(options);
    AddLimits(&options->embedder, options);
    AddLogging(options);
    AddTracing(options);
    AddGeneral();
  }

  // Null if the options are complete, else what to print and how to end.
  std::unique_ptr<ParsedFlags> Parse() {
    try {
      // CLI11 takes the last argument first.
      app_.parse(std::vector<std::string>(args_.rbegin(), args_.rend()));
      return nullptr;
    } catch (const CLI::CallForHelp&) {
      return End(0, app_.help());
    } catch (const CLI::CallForVersion&) {
      return End(0, absl::StrCat(kProgram, " ", kServerVersion, "\n"));
    } catch (const CLI::ConfigError& error) {
      // Its text is CLI11's for a key that no flag has.
      return End(2, absl::StrCat(kProgram, ": ", app_.get_config_ptr()->as<std::string>(),
                                 ": unknown key ",
                                 absl::StripPrefix(error.what(), "INI was not able to parse "),
                                 "\n", "See ", kProgram, " --help\n"));
    } catch (const CLI::ParseError& error) {
      return End(2, absl::StrCat(kProgram, ": ", error.what(), "\nSee ", kProgram, " --help\n"));
    }
  }

 private:
  static std::unique_ptr<ParsedFlags> End(int exit_code, std::string message) {
    return std::make_unique<ParsedFlags>(ParsedFlags{std::nullopt, std::move(message), exit_code});
  }

  // Where the value of `flag` stands that is in force.
  std::string Source(const std::string& flag) const {
    for (const std::string& arg : args_) {
      if (arg == flag || absl::StartsWith(arg, flag + "=")) return flag;
    }
    if (!FromEnvironment(flag).empty()) return EnvironmentName(flag);
    return absl::StrCat(absl::StripPrefix(flag, "--"), " in the configuration file");
  }

  // A flag whose values, one or more, go to `set`.
  template <typename T>
  CLI::Option* AddFlag(const std::string& flag, const ValueKind<T>& kind, const std::string& help,
                       const std::string& default_text, std::function<void(T)> set) {
    const auto take = [this, flag, kind, set](const std::string& text) {
      std::optional<T> value = kind.parse(text);
      if (!value) {
        throw CLI::ValidationError(
            absl::StrCat(Source(flag), " must be ", kind.allowed, ", not '", text, "'"));
      }
      set(*std::move(value));
    };
    CLI::Option* option =
        app_.add_option_function<std::string>(flag, take, help)
            ->type_name(kind.type)
            ->envname(EnvironmentName(flag))
            ->group(group_)
            // So that a wrapper's arguments can be overridden by appending to them.
            ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    if (!default_text.empty()) option->default_str(default_text);
    return option;
  }

  template <typename T>
  CLI::Option* Add(const std::string& flag, const ValueKind<T>& kind, T* target,
                   const std::string& help) {
    return AddFlag<T>(flag, kind, help, kind.print(*target),
                      [target](T value) { *target = std::move(value); });
  }

  // A value written as `parse` reads it.
  template <typename T>
  void AddParsed(const std::string& flag, const std::string& type, const std::string& allowed,
                 std::optional<T> (*parse)(absl::string_view), const std::string& default_text,
                 T* target, const std::string& help) {
    ValueKind<T> kind;
    kind.type = type;
    kind.allowed = allowed;
    kind.parse = [parse](const std::string& text) { return parse(text); };
    AddFlag<T>(flag, kind, help, default_text, [target](T value) { *target = value; });
  }

  // A number whose 0 means what `zero` says.
  CLI::Option* AddOrAutomatic(const std::string& flag, const ValueKind<int>& kind, int* target,
                              const std::string& help, const std::string& zero) {
    return AddFlag<int>(flag, kind, help, zero, [target](int value) { *target = value; });
  }

  void AddModel(Embedder::Options* embedder, ServerOptions* options) {
    group_ = "Model";
    Add("--model", TextValue("DIR|NAME"), &embedder->model_dir,
        "Hugging Face directory of the model to serve, or its name at the hub, "
        "ORGANIZATION/NAME[@REVISION], which is fetched if the cache lacks it")
        ->required();
    AddNames(&embedder->name, &options->aliases);
    AddFlag<int64_t>("--dimensions", IntegerValue<int64_t>(1, kMaxInt),
                     "Length of vectors where a request does not say", "the model's own",
                     [=](int64_t value) { embedder->default_dimensions = value; });
    AddFlag<std::string>("--default-prompt", TextValue("NAME"),
                         "Prompt of the model's table where a request does not say",
                         "the model's own",
                         [=](std::string name) { embedder->default_prompt_name = name; });
    Add("--truncation",
        ChoiceValue<Truncation>({{"none", Truncation::kNone},
                                 {"right", Truncation::kRight},
                                 {"left", Truncation::kLeft}}),
        &embedder->default_truncation,
        "Side cut from inputs that are too long where a request does not say; none refuses them");
    AddOrAutomatic("--max-input-tokens", IntegerValue<int>(1, kMaxInt), &embedder->max_input_tokens,
                   "Tokens of the longest input, up to the positions the model has",
                   "the model's own");
    AddParsed<QuantizationChoice>(
        "--quantization", "FORMAT", kQuantizationChoices, ParseQuantizationChoice,
        QuantizationChoiceText(embedder->quantization), &embedder->quantization,
        "What the checkpoint must be; int4 and fp8 also quantize one that is stored in floats");
    ValueKind<int> threads = IntegerValue<int>(1, cpu::AvailableCores());
    threads.allowed += ", the cores this process may use";
    AddOrAutomatic("--threads", threads, &embedder->num_threads,
                   "Threads of the CPU backend, at most the cores there are", "all cores");
    AddOrAutomatic("--tokenizer-threads", IntegerValue<int>(1, kMaxInt),
                   &options->tokenizer_threads, "Threads that tokenize large requests",
                   "one for every four cores");
  }

  // The first name is the model's, the rest are aliases.
  void AddNames(std::string* name, std::vector<std::string>* aliases) {
    const std::string flag = "--served-name";
    const auto take = [=, this](const std::vector<std::string>& names) {
      if (std::find(names.begin(), names.end(), "") != names.end()) {
        throw CLI::ValidationError(
            absl::StrCat(Source(flag), " must be a text that is not empty, not ''"));
      }
      *name = names.front();
      aliases->assign(names.begin() + 1, names.end());
    };
    app_.add_option_function<std::vector<std::string>>(
            flag, take, "Name to serve the model under; given again, or after a comma: an alias")
        ->type_name("NAME")
        ->envname(EnvironmentName(flag))
        ->group(group_)
        ->expected(1)
        ->delimiter(',')
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->default_str("the directory's name");
  }

  void AddDevice(Embedder::Options* embedder) {
    group_ = "Device";
    AddParsed<DeviceChoice>(
        "--device", "DEVICE", kDeviceChoices, ParseDeviceChoice, DeviceChoiceText(embedder->device),
        &embedder->device, "Where the model runs; auto: on the first CUDA device, else on the CPU");
    CudaOptions* cuda = &embedder->cuda;
    Add("--dtype",
        ChoiceValue<ComputeType>(
            {{"bfloat16", ComputeType::kBfloat16}, {"float16", ComputeType::kFloat16}}),
        &cuda->dtype, "Type of weights and activations on a CUDA device");
    Add("--activation",
        ChoiceValue<ActivationType>({{"auto", ActivationType::kAuto},
                                     {"16bit", ActivationType::kHalf},
                                     {"fp8", ActivationType::kFp8}}),
        &cuda->activation,
        "What quantized weights are multiplied by on a CUDA device, in large batches; auto: FP8 "
        "where they are FP8, else --dtype");
    AddParsed<MemoryBudget>("--memory-budget", "MEMORY", kMemoryBudgets, ParseMemoryBudget,
                            "nearly all of the card", &cuda->memory_budget,
                            "Most memory of the CUDA device that this process may take");
    Add("--force-portable", ChoiceValue<bool>({{"on", true}, {"off", false}}),
        &cuda->force_portable,
        "Use the kernels that run on every CUDA device, not those of its architecture");
    AddFlag<std::string>("--cache-dir", TextValue("DIR"),
                         "Where algorithms measured on a CUDA device are kept between starts",
                         "quiver in the user's cache folder",
                         [cuda](std::string dir) { cuda->cache_dir = std::move(dir); });
  }

  void AddBatching(Embedder::Options* embedder) {
    group_ = "Batching";
    Scheduler::Options* scheduler = &embedder->scheduler;
    Add("--prefix-cache-memory", BytesValue(0, int64_t{1} << 36), &embedder->prefix_cache_bytes,
        "Memory for keys and values of beginnings that inputs share, such as an instruction; 0 for "
        "none");
    AddOrAutomatic("--max-batch-tokens", IntegerValue<int>(1, kMaxInt), &embedder->max_batch_tokens,
                   "Tokens of one batch, at least --max-input-tokens", "the backend's choice");
    const auto batch_time = DurationValue(absl::Milliseconds(1), absl::Seconds(60));
    Add("--interactive-batch-time", batch_time, &scheduler->interactive_batch_time,
        "Predicted time that a batch of interactive inputs is filled up to");
    Add("--bulk-batch-time", batch_time, &scheduler->bulk_batch_time,
        "Predicted time that a batch of bulk inputs is filled up to");
    Add("--bulk-share", RealValue(0, 1), &scheduler->bulk_share,
        "Part of the device's time that bulk work keeps while interactive work waits");
  }

  void AddNetwork(ServerOptions* options) {
    group_ = "Network";
    const auto port = IntegerValue<int>(0, 65535);
    Add("--host", TextValue("ADDRESS"), &options->host,
        "IP address to listen on; 0.0.0.0 or :: for all");
    Add("--grpc-port", port, &options->grpc_port, "Port of gRPC; 0 for any free one");
    Add("--http-port", port, &options->http_port,
        "Port of /v1/embeddings, /v1/models, /embed, /info, /health, /livez, /readyz, /metrics and "
        "/debug/scheduler; 0 for any free one");
    AddFlag<std::string>(
        "--port-file", TextValue("FILE"),
        "Where to write what was bound, as lines grpc=HOST:PORT and http=HOST:PORT", "",
        [=](std::string file) { options->port_file = std::move(file); });
    AddFlag<std::string>(
        "--tls-certificate", TextValue("FILE"),
        "Certificate in PEM, then those that lead to its authority; both ports then speak TLS "
        "alone",
        "no TLS", [=](std::string file) { options->tls_certificate_file = std::move(file); });
    AddFlag<std::string>("--tls-key", TextValue("FILE"), "Its private key in PEM, not encrypted",
                         "no TLS",
                         [=](std::string file) { options->tls_key_file = std::move(file); });
    AddFlag<std::string>(
        "--api-keys", TextValue("FILE"),
        "Whose keys calls must have, by SHA-256, one a line; health and metrics stay open",
        "anybody may call", [=](std::string file) { options->api_keys_file = std::move(file); });
    Add("--grpc-keepalive-time", DurationValue(absl::Seconds(1), absl::Hours(24)),
        &options->grpc_keepalive_time,
        "Silence after which a gRPC connection is asked whether it is still there");
    Add("--max-http-connections", IntegerValue<int>(1, 1'000'000), &options->http.max_connections,
        "HTTP connections at a time; more are answered 503");
    const auto timeout = DurationValue(absl::Milliseconds(1), absl::Hours(24));
    Add("--http-idle-timeout", timeout, &options->http.idle_timeout,
        "Longest wait for an HTTP connection's next request");
    Add("--http-read-timeout", timeout, &options->http.read_timeout,
        "Longest wait for the rest of an HTTP request's header");
  }

  void AddLimits(Embedder::Options* embedder, ServerOptions* options) {
    group_ = "Limits";
    Scheduler::Options* scheduler = &embedder->scheduler;
    Add("--max-message-bytes", BytesValue(1 << 10, int64_t{1} << 30), &options->max_message_bytes,
        "Size of one request");
    Add("--max-items-per-request", IntegerValue<int>(1, 1'000'000), &options->max_items_per_request,
        "Inputs of one request, or of one message of a stream");
    Add("--max-stream-items", IntegerValue<int>(1, kMaxInt), &options->max_stream_items,
        "Unanswered inputs of one stream; no more are read then");
    Add("--max-stream-tokens", IntegerValue<int64_t>(1, kMaxInt64), &options->max_stream_tokens,
        "Tokens of a stream's unanswered inputs; no more are read then");
    Add("--max-calls-per-connection", IntegerValue<int>(1, kMaxInt),
        &options->max_calls_per_connection,
        "Calls under way on one gRPC connection; more wait at the client");
    Add("--max-queued-tokens", IntegerValue<int64_t>(1, kMaxInt64), &scheduler->max_queued_tokens,
        "Tokens that may wait in each lane; more are refused");
    Add("--max-queued-items", IntegerValue<int64_t>(1, kMaxInt64), &scheduler->max_queued_tasks,
        "Inputs that may wait in each lane; more are refused");
    Add("--drain-timeout", DurationValue(absl::ZeroDuration(), absl::Hours(24)),
        &options->drain_timeout, "Time for accepted work to finish after SIGTERM");
  }

  void AddLogging(ServerOptions* options) {
    group_ = "Logging";
    Add("--log-format",
        ChoiceValue<LogFormat>({{"text", LogFormat::kText}, {"json", LogFormat::kJson}}),
        &options->log_format, "Form of the log on stderr");
    Add("--log-level",
        ChoiceValue<LogLevel>({{"debug", LogLevel::kDebug},
                               {"info", LogLevel::kInfo},
                               {"warning", LogLevel::kWarning},
                               {"error", LogLevel::kError}}),
        &options->log_level, "Least level that is logged");
    Add("--access-log", ChoiceValue<bool>({{"on", true}, {"off", false}}), &options->access_log,
        "One line for each request, at level info; never with its text");
  }

  void AddTracing(ServerOptions* options) {
    group_ = "Tracing";
    ValueKind<std::string> url = TextValue("URL");
    url.allowed = kOtlpEndpoints;
    url.parse = [](const std::string& text) -> std::optional<std::string> {
      if (!ParseOtlpEndpoint(text).has_value()) return {};
      return text;
    };
    AddFlag<std::string>("--otlp-endpoint", url,
                         "Collector that gets traces, as OTLP in JSON over HTTP, under /v1/traces",
                         "OTEL_EXPORTER_OTLP_ENDPOINT, else no traces",
                         [=](std::string text) { options->otlp_endpoint = std::move(text); });
    Add("--trace-sample-ratio", RealValue(0, 1), &options->trace_sample_ratio,
        "Part of the requests without a trace of their caller's that are traced");
  }

  void AddGeneral() {
    const std::string group = "General";
    const std::string file = FromEnvironment("--config");
    app_.config_formatter(std::make_shared<FileBelowEnvironment>());
    app_.allow_config_extras(CLI::config_extras_mode::error);
    // A file that the environment names must be there, as one on the command line must.
    app_.set_config("--config", file, "Configuration file (TOML): lines of name = value",
                    !file.empty())
        ->type_name("FILE")
        ->envname(EnvironmentName("--config"))
        ->group(group);
    app_.set_help_flag("-h,--help", "Print this and exit")->group(group);
    app_.set_version_flag("--version", std::string(kServerVersion), "Print the version and exit")
        ->group(group);
    app_.footer(
        "Every flag is also the environment variable in brackets and a key of the configuration "
        "file.\n"
        "The command line goes before the environment, the environment before the file.");
  }

  const std::vector<std::string> args_;
  CLI::App app_;
  std::string group_;
};

}  // namespace

ParsedFlags ParseFlags(absl::Span<const char* const> args) {
  ServerOptions options;
  if (std::unique_ptr<ParsedFlags> end = Parser(&options, args).Parse()) return *std::move(end);
  return {std::move(options), "", 0};
}

}  // namespace quiver
