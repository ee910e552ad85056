#ifndef QUIVER_TESTS_TOOLS_CLIENT_CLIENT_RIG_H_
#define QUIVER_TESTS_TOOLS_CLIENT_CLIENT_RIG_H_

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "quiver/client.h"
#include "tests/tools/client/fake_server.h"
#include "tools/client/core.h"

namespace quiver::client {

// A client of fake servers, called "0", "1" and so on.
class ClientTest : public ::testing::Test {
 protected:
  // Waits are short, so that tests are; a deadline outlives a busy machine.
  static ClientOptions Quick() {
    ClientOptions options;
    options.servers = {"fake"};
    options.retry = {
        .max_tries = 4, .first_wait = absl::Milliseconds(2), .max_wait = absl::Milliseconds(20)};
    options.resolve_interval = absl::Milliseconds(2);
    return options;
  }

  void Connect(std::vector<FakeServer::Options> servers, ClientOptions options = Quick()) {
    for (FakeServer::Options& server : servers) {
      servers_.push_back(std::make_unique<FakeServer>(std::move(server)));
    }
    Show(servers_.size());
    auto core = MakeCore(
        std::move(options),
        [this](const Address& address) {
          return servers_[static_cast<size_t>(std::stoi(address.target))]->NewEndpoint();
        },
        [this](const std::string&) -> absl::StatusOr<std::vector<Address>> {
          absl::MutexLock lock(&mutex_);
          return addresses_;
        });
    ASSERT_TRUE(core.ok()) << core.status();
    client_ = std::make_unique<Client>(*std::move(core));
  }

  // From now on the name stands for the first `count` servers.
  void Show(size_t count) {
    absl::MutexLock lock(&mutex_);
    addresses_.clear();
    for (size_t i = 0; i < count; ++i) addresses_.push_back({absl::StrCat(i), "fake"});
  }

  // Texts of the lengths 1, 2, ...
  static std::vector<Input> Texts(size_t count) {
    std::vector<Input> texts;
    for (size_t i = 1; i <= count; ++i) texts.emplace_back(std::string(i, 'x'));
    return texts;
  }
  static void ExpectVectors(const EmbedReply& reply, size_t count) {
    ASSERT_EQ(reply.results.size(), count);
    for (size_t i = 0; i < count; ++i) {
      ASSERT_TRUE(reply.results[i].ok()) << reply.results[i].status();
      EXPECT_THAT(reply.results[i]->Floats(), ::testing::ElementsAre(static_cast<float>(i + 1)));
    }
  }

  // Writes `count` texts "x" with keys from 0 and reads all results; how often each key came, which
  // must be with a vector. `middle` runs before the text in the middle is written.
  std::map<uint64_t, int> Stream(
      EmbedStream* stream, size_t count, const std::function<void()>& middle = [] {}) {
    std::thread writer([&] {
      for (size_t i = 0; i < count; ++i) {
        if (i == count / 2) middle();
        EXPECT_TRUE(stream->Write("x", i));
      }
      stream->WritesDone();
    });
    std::map<uint64_t, int> seen;
    StreamResult result;
    while (stream->Read(&result)) {
      EXPECT_TRUE(result.embedding.ok()) << result.embedding.status();
      ++seen[result.key];
    }
    writer.join();
    return seen;
  }
  static void ExpectEachOnce(const std::map<uint64_t, int>& seen, size_t count) {
    EXPECT_EQ(seen.size(), count);
    for (const auto& [key, times] : seen) EXPECT_EQ(times, 1) << key;
  }

  FakeServer& server(size_t i) { return *servers_[i]; }
  int items() const {
    int sum = 0;
    for (const auto& server : servers_) sum += server->items();
    return sum;
  }

  // The client goes first.
  std::vector<std::unique_ptr<FakeServer>> servers_;
  absl::Mutex mutex_;
  std::vector<Address> addresses_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<Client> client_;
};

}  // namespace quiver::client

#endif  // QUIVER_TESTS_TOOLS_CLIENT_CLIENT_RIG_H_
