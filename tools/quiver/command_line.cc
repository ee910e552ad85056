#include "tools/quiver/command_line.h"

#include <csignal>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "engine/field_error.h"
#include "tools/quiver/json_text.h"
#include "tools/quiver/output_file.h"

namespace quiver {
namespace {

// The flags behind RequestOptions' fields.
constexpr std::pair<absl::string_view, absl::string_view> kFlagOfField[] = {
    {"prompt_name", "--prompt"},
    {"instruction", "--instruction"},
    {"dimensions", "--dimensions"},
};

// `quiver help` and `quiver help COMMAND`.
void AddHelpCommand(CLI::App* app) {
  CLI::App* help = app->add_subcommand("help", "Show the help of a command");
  auto topic = std::make_shared<std::string>();
  help->add_option("command", *topic, "The command");
  help->callback([app, topic] {
    if (topic->empty()) {
      // app->help() would show the command that was chosen, which is this one.
      std::cout << app->get_formatter()->make_help(app, app->get_name(),
                                                   CLI::AppFormatMode::Normal);
      return;
    }
    const std::vector<const CLI::App*> commands = std::as_const(*app).get_subcommands(
        [topic](const CLI::App* command) { return command->get_name() == *topic; });
    if (commands.empty()) {
      throw CLI::ValidationError("help", absl::StrCat("there is no command '", *topic, "'"));
    }
    std::cout << commands[0]->help(app->get_name());
  });
}

}  // namespace

void Say(absl::string_view message) {
  const std::string line = absl::StrCat("quiver: ", message, "\n");
  std::fwrite(line.data(), 1, line.size(), stderr);
}

int Print(absl::string_view text) {
  absl::StatusOr<std::unique_ptr<OutputFile>> out =
      OutputFile::Open("-", OutputFile::Mode::kAsItGoes);
  absl::Status status = out.status();
  if (status.ok()) status = (*out)->Write(text);
  if (status.ok()) status = (*out)->Close();
  return status.ok() ? int{kExitOk} : ReportFailure(status);
}

int ReportFailure(const absl::Status& status) {
  if (status.code() == absl::StatusCode::kCancelled) return kExitFailure;
  const std::string field = ErrorField(status);
  for (const auto& [name, flag] : kFlagOfField) {
    if (field == name) {
      Say(absl::StrCat(flag, ": ", status.message()));
      return kExitUsage;
    }
  }
  Say(ErrorText(status));
  return kExitFailure;
}

int RunCommandLine(int argc, char** argv) {
  // A reader that goes away is an error of writing, not the end of the process.
  std::signal(SIGPIPE, SIG_IGN);
  // So is a file that may not grow any further.
  std::signal(SIGXFSZ, SIG_IGN);
  CLI::App app(
      "Turns text into embeddings, with a model in this process or with a running server.\n"
      "Data goes to standard output, everything else to standard error.",
      "quiver");
  app.set_version_flag("--version", std::string("quiver " QUIVER_VERSION));
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  app.footer(
      "`quiver COMMAND --help` explains a command. Exit codes: 0 all went well; 1 an item, a check "
      "or\n"
      "the run as a whole failed; 2 the command line is wrong, or asks for what the model lacks.");
  int exit_code = kExitOk;
  AddEmbedCommand(&app, &exit_code);
  AddIndexCommand(&app, &exit_code);
  AddTokenizeCommand(&app, &exit_code);
  AddSearchCommand(&app, &exit_code);
  AddInfoCommand(&app, &exit_code);
  AddDoctorCommand(&app, &exit_code);
  AddBenchCommand(&app, &exit_code);
  AddFetchCommand(&app, &exit_code);
  AddMakeCheckpointCommand(&app, &exit_code);
  AddHelpCommand(&app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& e) {
    if (const std::vector<std::string> unknown = app.remaining(); !unknown.empty()) {
      Say(absl::StrCat("there is no command or flag '", unknown[0], "'; see quiver --help"));
      return kExitUsage;
    }
    app.exit(e, std::cout, std::cerr);
    return kExitUsage;
  } catch (const CLI::ParseError& e) {
    // CLI11 has codes of its own for what is wrong.
    return app.exit(e, std::cout, std::cerr) == 0 ? kExitOk : kExitUsage;
  }
  return exit_code;
}

}  // namespace quiver
