// What queries cost that begin with the same instruction, with and without its keys and values
// kept: 1,000 queries of 42 tokens, of which 30 are shared, submitted at once to the CPU backend of
// a model, three times in each lane. Also how far apart the vectors are.
//
// Usage: shared_prefix MODEL_DIR
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "absl/time/clock.h"
#include "engine/model_files.h"
#include "engine/run/create_backend.h"
#include "engine/schedule/scheduler.h"
#include "engine/schedule/warm_up.h"

namespace quiver {
namespace {

constexpr int kQueries = 1000;
constexpr int kTokens = 42;
constexpr int kShared = 30;
constexpr int kRounds = 3;

// Query `number`; the first ids of all are the same.
std::vector<TokenId> Query(int number, int vocabulary) {
  std::vector<TokenId> ids;
  for (int i = 0; i < kTokens; ++i) {
    const uint32_t seed = static_cast<uint32_t>(i < kShared ? i : 1000 + number * kTokens + i);
    ids.push_back(
        static_cast<TokenId>((seed * 2654435761u >> 8) % static_cast<uint32_t>(vocabulary)));
  }
  return ids;
}

// Queries a second, the best round's; the vectors are the last one's.
double Rate(const ModelFiles& files, Lane lane, int64_t prefix_cache_bytes,
            std::vector<std::string>* vectors) {
  const ModelConfig& config = files.info.config;
  auto backend = CreateBackend(
      config, files.weights,
      {.device = {DeviceChoice::Kind::kCpu, 0}, .prefix_cache_bytes = prefix_cache_bytes});
  Scheduler::Options options;
  if (!backend.ok() || !WarmUp(backend->get(), config.vocab_size, &options.cost_model).ok()) {
    return 0;
  }
  const std::vector<TokenId> query = Query(0, config.vocab_size);
  options.prefixes = {{query.begin(), query.begin() + kShared}};
  auto scheduler = Scheduler::Create(options, backend->get(), nullptr);
  if (!scheduler.ok()) return 0;
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    vectors->assign(kQueries, "");
    absl::BlockingCounter left(kQueries);
    std::vector<EmbedTask> tasks(kQueries);
    for (int i = 0; i < kQueries; ++i) {
      tasks[i].token_ids = Query(i, config.vocab_size);
      tasks[i].output.dimensions = config.hidden_size;
      tasks[i].lane = lane;
      tasks[i].done = [&, i](TaskResult result) {
        if (result.vector.ok()) (*vectors)[i] = result.vector->data;
        left.DecrementCount();
      };
    }
    const absl::Time begin = absl::Now();
    (*scheduler)->SubmitMany(absl::MakeSpan(tasks));
    left.Wait();
    best = std::max(best, kQueries / absl::ToDoubleSeconds(absl::Now() - begin));
  }
  return best;
}

double Cosine(const std::string& a, const std::string& b) {
  std::vector<float> x(a.size() / 4), y(b.size() / 4);
  if (x.empty() || x.size() != y.size()) return 0;
  std::memcpy(x.data(), a.data(), a.size());
  std::memcpy(y.data(), b.data(), b.size());
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += static_cast<double>(x[i]) * y[i];
    xx += static_cast<double>(x[i]) * x[i];
    yy += static_cast<double>(y[i]) * y[i];
  }
  return xy / std::sqrt(xx * yy);
}

int Main(const char* model) {
  auto files = OpenModelFiles(model, "", QuantizationChoice::kAuto);
  if (!files.ok()) return 1;
  for (const Lane lane : {Lane::kInteractive, Lane::kBulk}) {
    std::vector<std::string> computed, reused;
    const double without = Rate(*files, lane, 0, &computed);
    const double with = Rate(*files, lane, kDefaultPrefixCacheBytes, &reused);
    double least = 1;
    int equal = 0;
    for (int i = 0; i < kQueries; ++i) {
      least = std::min(least, Cosine(computed[i], reused[i]));
      equal += computed[i] == reused[i];
    }
    std::printf(
        "%-12s %.0f queries/s without, %.0f with: %.2f times; least cosine %.9f, %d of %d equal\n",
        lane == Lane::kBulk ? "bulk" : "interactive", without, with, with / without, least, equal,
        kQueries);
  }
  return 0;
}

}  // namespace
}  // namespace quiver

int main(int argc, char** argv) { return argc == 2 ? quiver::Main(argv[1]) : 2; }
