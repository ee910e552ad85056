// quiver-server: reads flags, serves, and ends when it is told to.
//
// Exit codes: 0 after a clean end, 1 if it could not serve, lost its device or did not finish its
// work in time, 2 for wrong flags, 128 and the signal's number if a second signal cut the draining
// short.
#include <poll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "engine/field_error.h"
#include "server/event_fd.h"
#include "server/flags.h"
#include "server/log.h"
#include "server/server.h"

namespace quiver {
namespace {

// A function on a thread of its own, whose end can be polled for.
class Task {
 public:
  explicit Task(std::function<void()> work)
      : thread_([this, work = std::move(work)] {
          work();
          done_.Set();
        }) {}
  ~Task() { thread_.join(); }

  int done() const { return done_.fd(); }

 private:
  EventFd done_;
  std::thread thread_;
};

// SIGTERM, SIGINT and SIGHUP (of a terminal that is closed) as something to poll for. To be made
// before any thread, as threads inherit what is blocked.
class Signals {
 public:
  Signals() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    fd_ = signalfd(-1, &signals, SFD_CLOEXEC);
  }

  // The number of the next signal, or 0 if the descriptor `event` can be read from first.
  int Await(int event) {
    pollfd fds[] = {{fd_, POLLIN, 0}, {event, POLLIN, 0}};
    while (poll(fds, 2, -1) < 0 && errno == EINTR) {
    }
    if (fds[1].revents != 0) return 0;
    signalfd_siginfo info = {};
    (void)!read(fd_, &info, sizeof(info));
    return static_cast<int>(info.ssi_signo);
  }

 private:
  int fd_ = -1;
};

// A connection takes a descriptor; the soft limit is often 1024.
void RaiseDescriptorLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Without waiting for threads that work on what nobody wants any more.
[[noreturn]] void EndAtOnce(Logger* logger, int exit_code) {
  logger->Flush(absl::Seconds(1));
  std::_Exit(exit_code);
}

// The flags behind the fields that only the model can judge.
constexpr std::pair<absl::string_view, absl::string_view> kFlagOfField[] = {
    {"default_dimensions", "--dimensions"},
    {"default_prompt_name", "--default-prompt"},
    {"max_input_tokens", "--max-input-tokens"},
    {"max_batch_tokens", "--max-batch-tokens"},
};

std::string ErrorText(const absl::Status& status) {
  const std::string field = ErrorField(status);
  for (const auto& [name, flag] : kFlagOfField) {
    if (field == name) return absl::StrCat(flag, ": ", status.message());
  }
  return std::string(status.message());
}

int Serve(const ServerOptions& options, Signals* signals, Logger* logger) {
  absl::StatusOr<std::unique_ptr<Server>> created = Server::Create(options, logger);
  if (!created.ok()) {
    logger->Error("cannot start", {{"error", created.status().message()}});
    return absl::IsInvalidArgument(created.status()) ? 2 : 1;
  }
  Server& server = **created;

  absl::Status loaded;
  {
    Task load([&] { loaded = server.Load(); });
    if (const int signal = signals->Await(load.done()); signal != 0) {
      logger->Info("stopped while starting", {{"signal", sigabbrev_np(signal)}});
      EndAtOnce(logger, 0);
    }
  }
  if (!loaded.ok()) {
    logger->Error("cannot load the model", {{"model_dir", options.embedder.model_dir},
                                            {"code", absl::StatusCodeToString(loaded.code())},
                                            {"error", ErrorText(loaded)}});
    return 1;
  }

  const int signal = signals->Await(server.device_lost());
  const bool lost = signal == 0;
  logger->Info("draining", {{"signal", lost ? "" : sigabbrev_np(signal)},
                            {"timeout_seconds", options.drain_timeout}});
  bool clean = false;
  {
    Task drain([&] { clean = server.Drain(); });
    if (const int second = signals->Await(drain.done()); second != 0) {
      logger->Warning("ended without draining", {{"signal", sigabbrev_np(second)}});
      EndAtOnce(logger, 128 + second);
    }
  }
  if (!clean) {
    logger->Warning("stopped: some of the work was not finished in time");
  } else {
    logger->Info("stopped");
  }
  // Threads may be waiting for the device for good.
  if (lost) EndAtOnce(logger, 1);
  return clean ? 0 : 1;
}

}  // namespace
}  // namespace quiver

int main(int argc, char** argv) {
  const quiver::ParsedFlags flags = quiver::ParseFlags({argv + 1, static_cast<size_t>(argc - 1)});
  if (!flags.options) {
    std::fputs(flags.message.c_str(), flags.exit_code == 0 ? stdout : stderr);
    return flags.exit_code;
  }
  std::signal(SIGPIPE, SIG_IGN);
  quiver::RaiseDescriptorLimit();
  quiver::Signals signals;
  quiver::Logger logger({flags.options->log_format, flags.options->log_level});
  return quiver::Serve(*flags.options, &signals, &logger);
}
