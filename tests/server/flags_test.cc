#include "server/flags.h"

#include <cstdlib>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/thread_pool.h"
#include "tests/testing/tiny_checkpoint.h"

namespace quiver {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class FlagsTest : public ::testing::Test {
 protected:
  ~FlagsTest() override {
    for (const std::string& name : set_) unsetenv(name.c_str());
  }

  void SetEnvironment(const std::string& name, const std::string& value) {
    setenv(name.c_str(), value.c_str(), 1);
    set_.push_back(name);
  }

  std::string WriteConfig(const std::string& text) {
    const std::string path = TestDir("flags") + "/quiver.toml";
    WriteFile(path, text);
    return path;
  }

  // With --model in front.
  ServerOptions Options(std::vector<const char*> args) {
    args.insert(args.begin(), "--model=m");
    const ParsedFlags parsed = ParseFlags(args);
    EXPECT_TRUE(parsed.options.has_value()) << parsed.message;
    return parsed.options.value_or(ServerOptions());
  }

  std::string Error(std::vector<const char*> args) {
    args.insert(args.begin(), "--model=m");
    const ParsedFlags parsed = ParseFlags(args);
    EXPECT_FALSE(parsed.options.has_value());
    EXPECT_EQ(parsed.exit_code, 2);
    return parsed.message;
  }

 private:
  std::vector<std::string> set_;
};

TEST_F(FlagsTest, ThreadsAreAtMostTheCoresOfThisProcess) {
  const int cores = cpu::AvailableCores();
  const std::string most = "--threads=" + std::to_string(cores);
  EXPECT_EQ(Options({most.c_str()}).embedder.num_threads, cores);
  const std::string more = std::to_string(cores + 1);
  const std::string error = Error({"--threads", more.c_str()});
  EXPECT_THAT(error, HasSubstr("--threads must be an integer from 1 to " + std::to_string(cores)));
  EXPECT_THAT(error, HasSubstr("not '" + more + "'"));
}

TEST_F(FlagsTest, DefaultsAreTheOptionsOwn) {
  const ServerOptions options = Options({});
  const ServerOptions defaults;
  EXPECT_EQ(options.embedder.model_dir, "m");
  EXPECT_EQ(options.host, "127.0.0.1");
  EXPECT_EQ(options.grpc_port, 50051);
  EXPECT_EQ(options.http_port, 30000);
  EXPECT_EQ(options.drain_timeout, defaults.drain_timeout);
  EXPECT_FALSE(options.embedder.default_dimensions.has_value());
  EXPECT_FALSE(options.embedder.default_prompt_name.has_value());
}

TEST_F(FlagsTest, EveryKindOfValueIsRead) {
  const ServerOptions options =
      Options({"--dimensions", "512", "--truncation", "right", "--bulk-share", "0.25",
               "--max-message-bytes", "4MiB", "--drain-timeout", "1m30s", "--log-format=json",
               "--log-level=debug", "--access-log", "on", "--default-prompt", "query",
               "--max-queued-tokens", "5000000000"});
  EXPECT_EQ(options.embedder.default_dimensions, 512);
  EXPECT_EQ(options.embedder.default_truncation, Truncation::kRight);
  EXPECT_EQ(options.embedder.scheduler.bulk_share, 0.25);
  EXPECT_EQ(options.max_message_bytes, 4 << 20);
  EXPECT_EQ(options.drain_timeout, absl::Seconds(90));
  EXPECT_EQ(options.log_format, LogFormat::kJson);
  EXPECT_EQ(options.log_level, LogLevel::kDebug);
  EXPECT_TRUE(options.access_log);
  EXPECT_EQ(options.embedder.default_prompt_name, "query");
  EXPECT_EQ(options.embedder.scheduler.max_queued_tokens, 5'000'000'000);
}

TEST_F(FlagsTest, DeviceFlagsAreRead) {
  const Embedder::Options cuda =
      Options({"--device", "cuda:1", "--dtype", "float16", "--memory-budget", "9GiB",
               "--force-portable", "on", "--cache-dir", "/tmp/x"})
          .embedder;
  EXPECT_EQ(cuda.device, (DeviceChoice{DeviceChoice::Kind::kCuda, 1}));
  EXPECT_EQ(cuda.cuda.dtype, ComputeType::kFloat16);
  EXPECT_EQ(cuda.cuda.memory_budget.bytes, int64_t{9} << 30);
  EXPECT_TRUE(cuda.cuda.force_portable);
  EXPECT_EQ(cuda.cuda.cache_dir, "/tmp/x");
  EXPECT_EQ(Options({"--memory-budget=0.5"}).embedder.cuda.memory_budget.fraction, 0.5);

  const Embedder::Options defaults = Options({}).embedder;
  EXPECT_EQ(defaults.device, DeviceChoice());
  EXPECT_EQ(defaults.cuda.dtype, ComputeType::kBfloat16);
  EXPECT_EQ(defaults.cuda.memory_budget, MemoryBudget());
}

TEST_F(FlagsTest, WrongDeviceFlagsSayWhatIsAllowed) {
  EXPECT_THAT(Error({"--device", "gpu"}),
              HasSubstr("--device must be auto, cpu, cuda or cuda:N, not 'gpu'"));
  EXPECT_THAT(Error({"--dtype", "int8"}), HasSubstr("one of bfloat16, float16, not 'int8'"));
  EXPECT_THAT(Error({"--memory-budget", "1.5"}), HasSubstr("--memory-budget must be bytes"));
}

TEST_F(FlagsTest, FirstServedNameIsTheModelsAndTheRestAreAliases) {
  const ServerOptions options = Options({"--served-name", "a", "--served-name", "b,c"});
  EXPECT_EQ(options.embedder.name, "a");
  EXPECT_THAT(options.aliases, ElementsAre("b", "c"));
}

TEST_F(FlagsTest, LastOfAFlagGivenTwiceHolds) {
  EXPECT_EQ(Options({"--http-port=1", "--http-port", "2"}).http_port, 2);
}

TEST_F(FlagsTest, CommandLineGoesBeforeEnvironmentBeforeFileBeforeDefault) {
  const std::string config =
      "--config=" + WriteConfig(
                        "http-port = 1\ngrpc-port = 1\nhost = \"::1\"\nserved-name = [\"f\"]\n"
                        "log-format = \"json\"\n");
  SetEnvironment("QUIVER_HTTP_PORT", "2");
  SetEnvironment("QUIVER_GRPC_PORT", "2");
  SetEnvironment("QUIVER_SERVED_NAME", "e,g");
  SetEnvironment("QUIVER_LOG_FORMAT", "");
  const ServerOptions options = Options({config.c_str(), "--grpc-port", "3"});
  EXPECT_EQ(options.grpc_port, 3);
  EXPECT_EQ(options.http_port, 2);
  EXPECT_EQ(options.host, "::1");
  EXPECT_EQ(options.embedder.name, "e");
  EXPECT_THAT(options.aliases, ElementsAre("g"));
  // An empty variable says nothing.
  EXPECT_EQ(options.log_format, LogFormat::kJson);
  EXPECT_EQ(options.max_items_per_request, ServerOptions().max_items_per_request);
}

TEST_F(FlagsTest, ConfigurationFileMayBeNamedByTheEnvironment) {
  SetEnvironment("QUIVER_CONFIG", WriteConfig("http-port = 4\n"));
  EXPECT_EQ(Options({}).http_port, 4);
  SetEnvironment("QUIVER_CONFIG", "/nonexistent.toml");
  EXPECT_THAT(Error({}), HasSubstr("/nonexistent.toml"));
}

TEST_F(FlagsTest, ModelIsRequiredAndMayComeFromAnywhere) {
  const ParsedFlags none = ParseFlags({});
  EXPECT_EQ(none.exit_code, 2);
  EXPECT_THAT(none.message, HasSubstr("--model is required"));
  SetEnvironment("QUIVER_MODEL", "from-environment");
  EXPECT_EQ(ParseFlags({}).options->embedder.model_dir, "from-environment");
}

TEST_F(FlagsTest, WrongValueSaysWhereWhatIsAllowedAndWhatWasThere) {
  EXPECT_THAT(Error({"--http-port", "65536"}),
              HasSubstr("--http-port must be an integer from 0 to 65535, not '65536'"));
  EXPECT_THAT(Error({"--http-port", "8080x"}), HasSubstr("not '8080x'"));
  EXPECT_THAT(Error({"--truncation", "up"}),
              HasSubstr("--truncation must be one of none, right, left, not 'up'"));
  EXPECT_THAT(Error({"--bulk-share", "nan"}), HasSubstr("a number from 0 to 1, not 'nan'"));
  EXPECT_THAT(Error({"--drain-timeout", "30"}), HasSubstr("a duration with its unit"));
  EXPECT_THAT(Error({"--max-message-bytes", "4 chunks"}), HasSubstr("a number of bytes from 1KiB"));
  EXPECT_THAT(Error({"--dimensions", "0"}), HasSubstr("an integer from 1 to"));

  SetEnvironment("QUIVER_GRPC_PORT", "many");
  EXPECT_THAT(Error({}),
              HasSubstr("QUIVER_GRPC_PORT must be an integer from 0 to 65535, not 'many'"));
}

TEST_F(FlagsTest, WrongConfigurationFileSaysWhatIsWrong) {
  const std::string wrong = "--config=" + WriteConfig("http-port = -1\n");
  EXPECT_THAT(
      Error({wrong.c_str()}),
      HasSubstr("http-port in the configuration file must be an integer from 0 to 65535, not "
                "'-1'"));
  const std::string unknown = "--config=" + WriteConfig("htp-port = 1\n");
  EXPECT_THAT(Error({unknown.c_str()}), HasSubstr("quiver.toml: unknown key htp-port"));
}

TEST_F(FlagsTest, UnknownFlagAndStrayArgumentAreRefused) {
  EXPECT_THAT(Error({"--no-such-flag"}), HasSubstr("--no-such-flag"));
  EXPECT_THAT(Error({"stray"}), HasSubstr("stray"));
}

TEST_F(FlagsTest, HelpGroupsFlagsWithTheirDefaultsAndVariables) {
  const std::vector<const char*> args = {"--help"};
  const ParsedFlags parsed = ParseFlags(args);
  EXPECT_EQ(parsed.exit_code, 0);
  for (const char* part :
       {"Model:", "Batching:", "Network:", "Limits:", "Logging:", "--grpc-port N", "50051", "32MiB",
        "30s", "QUIVER_GRPC_PORT", "none|right|left"}) {
    EXPECT_THAT(parsed.message, HasSubstr(part));
  }
}

TEST_F(FlagsTest, VersionIsPrinted) {
  const std::vector<const char*> args = {"--version"};
  const ParsedFlags parsed = ParseFlags(args);
  EXPECT_EQ(parsed.exit_code, 0);
  EXPECT_THAT(parsed.message, StartsWith("quiver-server "));
}

}  // namespace
}  // namespace quiver
