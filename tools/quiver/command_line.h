// What the subcommands share: exit codes, messages, and the shape of a command.
#ifndef QUIVER_TOOLS_QUIVER_COMMAND_LINE_H_
#define QUIVER_TOOLS_QUIVER_COMMAND_LINE_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace CLI {
class App;
}

namespace quiver {

enum ExitCode : int {
  kExitOk = 0,
  // An item, a check or the run as a whole failed.
  kExitFailure = 1,
  // The command line is wrong, or asks for what the model does not have.
  kExitUsage = 2,
};

// Each adds its subcommand to `app`; when that one is chosen, parsing runs it and sets *exit_code.
void AddEmbedCommand(CLI::App* app, int* exit_code);
void AddIndexCommand(CLI::App* app, int* exit_code);
void AddTokenizeCommand(CLI::App* app, int* exit_code);
void AddSearchCommand(CLI::App* app, int* exit_code);
void AddInfoCommand(CLI::App* app, int* exit_code);
void AddDoctorCommand(CLI::App* app, int* exit_code);
void AddBenchCommand(CLI::App* app, int* exit_code);
void AddFetchCommand(CLI::App* app, int* exit_code);
void AddMakeCheckpointCommand(CLI::App* app, int* exit_code);
// The same for `quiver bench serve`, under the app of `bench`.
void AddBenchServeCommand(CLI::App* bench, int* exit_code);

// The whole program.
int RunCommandLine(int argc, char** argv);

// A line on standard error: "quiver: MESSAGE".
void Say(absl::string_view message);

// Writes `text` to standard output: the exit code.
int Print(absl::string_view text);

// Says why a run failed and returns the exit code for it. An option the model refuses is named as
// it stands on the command line. Nobody reading standard output any more is no news to anybody.
int ReportFailure(const absl::Status& status);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_COMMAND_LINE_H_
