#include "server/metrics.h"

#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_embedder.h"

namespace quiver {
namespace {

using ::testing::ContainsRegex;

// What a scrape says, by series: name and labels as written, the latter sorted.
class Scraped {
 public:
  explicit Scraped(const std::string& text) {
    for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      if (absl::ConsumePrefix(&line, "# TYPE ")) {
        const std::vector<std::string> words = absl::StrSplit(line, ' ');
        EXPECT_TRUE(types.emplace(words[0], words[1]).second) << "twice: " << line;
      } else if (absl::ConsumePrefix(&line, "# HELP ")) {
        const std::vector<std::string> words = absl::StrSplit(line, absl::MaxSplits(' ', 1));
        helps[words[0]] = words[1];
      } else {
        const size_t space = line.rfind(' ');
        double value = 0;
        EXPECT_TRUE(absl::SimpleAtod(line.substr(space + 1), &value)) << line;
        EXPECT_TRUE(values.emplace(Sorted(line.substr(0, space)), value).second) << line;
      }
    }
  }

  // `series` is written with its labels sorted.
  double operator[](const std::string& series) const {
    const auto found = values.find(series);
    EXPECT_TRUE(found != values.end()) << series;
    return found == values.end() ? std::numeric_limits<double>::quiet_NaN() : found->second;
  }

  std::set<std::string> Series() const {
    std::set<std::string> series;
    for (const auto& [name, value] : values) series.insert(name);
    return series;
  }

  std::map<std::string, std::string> types;
  std::map<std::string, std::string> helps;
  std::map<std::string, double> values;

 private:
  // No label's value has a comma in it.
  static std::string Sorted(absl::string_view series) {
    const size_t brace = series.find('{');
    if (brace == absl::string_view::npos) return std::string(series);
    const std::set<std::string> labels =
        absl::StrSplit(series.substr(brace + 1, series.size() - brace - 2), ',');
    return absl::StrCat(series.substr(0, brace), "{", absl::StrJoin(labels, ","), "}");
  }
};

class MetricsTest : public ::testing::Test {
 protected:
  Scraped Scrape() { return Scraped(metrics_.Scrape(state_, http_, spans_)); }

  void End(RequestReport report) {
    metrics_.request_observer()->OnRequestStart(report.rpc);
    metrics_.request_observer()->OnItems(report.rpc, report.lane, report);
    metrics_.request_observer()->OnRequestEnd(report);
  }

  Metrics metrics_{nullptr};
  ServingState state_;
  HttpServer::Stats http_;
  SpanExporter::Stats spans_;
};

TEST_F(MetricsTest, EverySeriesIsThereFromTheFirstScrape) {
  const std::set<std::string> before = Scrape().Series();
  for (const Rpc rpc : {Rpc::kEmbed, Rpc::kEmbedStream, Rpc::kTokenize, Rpc::kGetModelInfo}) {
    for (const Lane lane : {Lane::kInteractive, Lane::kBulk}) {
      // Codes that nobody knows add no series either.
      for (int code = 0; code < 20; ++code) {
        RequestReport report;
        report.rpc = rpc;
        report.lane = lane;
        report.code = static_cast<absl::StatusCode>(code);
        report.succeeded = report.failed = report.truncated = 1;
        report.peer = absl::StrCat("peer", code);
        End(report);
        for (const DropPoint place : {DropPoint::kTokenizing, DropPoint::kAdmission,
                                      DropPoint::kQueue, DropPoint::kRunning}) {
          metrics_.scheduler_observer()->OnDropped(lane, place, report.code);
        }
      }
      BatchReport batch;
      batch.lane = lane;
      batch.tokens = batch.token_budget = 1;
      batch.predicted = batch.duration = absl::Seconds(1);
      metrics_.scheduler_observer()->OnBatch(batch);
    }
  }
  http_.responses = {1, 1, 1, 1, 1, 1};
  EXPECT_EQ(Scrape().Series(), before);
}

// The rules of `promtool check metrics`.
TEST_F(MetricsTest, NamesFollowTheRules) {
  const Scraped scraped = Scrape();
  EXPECT_GT(scraped.types.size(), 40u);
  for (const auto& [name, type] : scraped.types) {
    EXPECT_TRUE(absl::StartsWith(name, "quiver_") || absl::StartsWith(name, "process_")) << name;
    EXPECT_EQ(absl::EndsWith(name, "_total"), type == "counter") << name;
    for (const char* reserved : {"_bucket", "_count", "_sum"}) {
      EXPECT_FALSE(absl::EndsWith(name, reserved)) << name;
    }
    for (const char c : name) EXPECT_TRUE((c >= 'a' && c <= 'z') || c == '_') << name;
    for (const char* word : {"_ms", "milliseconds", "_counter", "_gauge", "_histogram"}) {
      EXPECT_FALSE(absl::StrContains(name, word)) << name;
    }
    EXPECT_FALSE(scraped.helps.at(name).empty()) << name;
  }
  for (const auto& [series, value] : scraped.values) {
    EXPECT_FALSE(absl::StrContains(series, "quantile=")) << series;
  }
}

TEST_F(MetricsTest, RequestIsCountedUnderItsRpcLaneAndCode) {
  RequestReport report;
  report.rpc = Rpc::kEmbed;
  report.lane = Lane::kBulk;
  report.succeeded = 5;
  report.CountFailure(absl::InvalidArgumentError("too long"));
  report.CountFailure(VectorError(cpu::VectorStatus::kNotFinite));
  report.truncated = 1;
  report.tokens = 700;
  report.total = absl::Milliseconds(30);
  report.tokenize = absl::Milliseconds(1);
  report.queue = absl::Milliseconds(4);
  report.compute = absl::Milliseconds(20);
  metrics_.request_observer()->OnRequestStart(Rpc::kEmbed);
  EXPECT_EQ(Scrape()["quiver_requests_in_flight{rpc=\"Embed\"}"], 1);
  metrics_.request_observer()->OnItems(report.rpc, report.lane, report);
  metrics_.request_observer()->OnRequestEnd(report);

  const Scraped scraped = Scrape();
  EXPECT_EQ(scraped["quiver_requests_in_flight{rpc=\"Embed\"}"], 0);
  EXPECT_EQ(scraped["quiver_requests_total{code=\"OK\",lane=\"bulk\",rpc=\"Embed\"}"], 1);
  EXPECT_EQ(scraped["quiver_requests_total{code=\"OK\",lane=\"interactive\",rpc=\"Embed\"}"], 0);
  EXPECT_EQ(scraped["quiver_items_total{lane=\"bulk\",outcome=\"succeeded\",rpc=\"Embed\"}"], 5);
  EXPECT_EQ(scraped["quiver_items_total{lane=\"bulk\",outcome=\"failed\",rpc=\"Embed\"}"], 2);
  EXPECT_EQ(scraped["quiver_failed_items_total{code=\"INVALID_ARGUMENT\",lane=\"bulk\"}"], 1);
  EXPECT_EQ(scraped["quiver_failed_items_total{code=\"INTERNAL\",lane=\"bulk\"}"], 1);
  EXPECT_EQ(scraped["quiver_failed_items_total{code=\"INTERNAL\",lane=\"interactive\"}"], 0);
  EXPECT_EQ(scraped["quiver_unusable_vectors_total{lane=\"bulk\"}"], 1);
  EXPECT_EQ(scraped["quiver_truncated_items_total{lane=\"bulk\",rpc=\"Embed\"}"], 1);
  EXPECT_EQ(scraped["quiver_tokens_total{lane=\"bulk\",rpc=\"Embed\"}"], 700);
  const std::string labels = "{lane=\"bulk\",rpc=\"Embed\"}";
  EXPECT_DOUBLE_EQ(scraped["quiver_request_duration_seconds_sum" + labels], 0.030);
  EXPECT_DOUBLE_EQ(scraped["quiver_request_tokenize_seconds_sum" + labels], 0.001);
  EXPECT_DOUBLE_EQ(scraped["quiver_request_queue_seconds_sum" + labels], 0.004);
  EXPECT_DOUBLE_EQ(scraped["quiver_request_compute_seconds_sum" + labels], 0.020);
}

TEST_F(MetricsTest, RefusalsDoNotMakeTheServerLookFast) {
  RequestReport refused;
  refused.code = absl::StatusCode::kResourceExhausted;
  for (int i = 0; i < 1000; ++i) End(refused);
  RequestReport slow;
  slow.succeeded = 1;
  slow.total = absl::Seconds(2);
  End(slow);
  const Scraped scraped = Scrape();
  EXPECT_EQ(scraped["quiver_request_duration_seconds_count{lane=\"interactive\",rpc=\"Embed\"}"],
            1);
  EXPECT_NEAR(scraped["quiver_request_duration_window_seconds{lane=\"interactive\","
                      "percentile=\"50\",rpc=\"Embed\"}"],
              2, 2.0 / 32);
}

TEST_F(MetricsTest, BatchesShowTheirSizeOccupancyAndPrediction) {
  BatchReport batch;
  batch.sequences = 8;
  batch.tokens = 1024;
  batch.token_budget = 4096;
  batch.duration = absl::Milliseconds(15);
  batch.predicted = absl::Milliseconds(10);
  batch.share = absl::Milliseconds(6);
  batch.overtaken = 3;
  batch.prefix_hits = 2;
  batch.prefix_tokens = 60;
  batch.gap = absl::Microseconds(30);
  metrics_.scheduler_observer()->OnBatch(batch);
  batch.ok = false;
  metrics_.scheduler_observer()->OnBatch(batch);

  const Scraped scraped = Scrape();
  const std::string lane = "{lane=\"interactive\"}";
  EXPECT_EQ(scraped["quiver_batches_total{lane=\"interactive\",outcome=\"ok\"}"], 1);
  EXPECT_EQ(scraped["quiver_batches_total{lane=\"interactive\",outcome=\"failed\"}"], 1);
  EXPECT_EQ(scraped["quiver_batch_overtakes_total" + lane], 6);
  EXPECT_EQ(scraped["quiver_batch_tokens_sum" + lane], 2048);
  EXPECT_EQ(scraped["quiver_batch_sequences_sum" + lane], 16);
  EXPECT_EQ(scraped["quiver_batch_occupancy_ratio_sum" + lane], 0.5);
  // The one that failed has no say in how good predictions are.
  EXPECT_EQ(scraped["quiver_batch_actual_to_predicted_ratio_count" + lane], 1);
  EXPECT_DOUBLE_EQ(scraped["quiver_batch_actual_to_predicted_ratio_sum" + lane], 1.5);
  EXPECT_EQ(scraped["quiver_prefix_hits_total" + lane], 2);
  EXPECT_EQ(scraped["quiver_prefix_saved_tokens_total" + lane], 60);
  EXPECT_EQ(scraped["quiver_padding_tokens_total"], 0);
  EXPECT_EQ(scraped["quiver_device_gap_seconds_count" + lane], 2);
  EXPECT_DOUBLE_EQ(scraped["quiver_device_gap_seconds_sum" + lane], 60e-6);
  EXPECT_DOUBLE_EQ(scraped["quiver_device_busy_seconds_total"], 0.030);
  EXPECT_NEAR(scraped["quiver_device_busy_ratio"], 0.030 / 60, 1e-9);
  EXPECT_NEAR(scraped["quiver_device_load_ratio"], 0.012 / 60, 1e-9);
}

TEST_F(MetricsTest, DropsAreCountedByPlaceAndCode) {
  metrics_.scheduler_observer()->OnDropped(Lane::kBulk, DropPoint::kQueue,
                                           absl::StatusCode::kDeadlineExceeded);
  metrics_.scheduler_observer()->OnDropped(Lane::kBulk, DropPoint::kRunning,
                                           absl::StatusCode::kInternal);
  const Scraped scraped = Scrape();
  EXPECT_EQ(scraped["quiver_dropped_items_total{code=\"DEADLINE_EXCEEDED\",lane=\"bulk\","
                    "place=\"queue\"}"],
            1);
  EXPECT_EQ(scraped["quiver_dropped_items_total{code=\"OTHER\",lane=\"bulk\",place=\"running\"}"],
            1);
}

TEST_F(MetricsTest, ItemsComputedTogetherWithAnEqualOneAreCounted) {
  metrics_.scheduler_observer()->OnJoined(Lane::kInteractive);
  const Scraped scraped = Scrape();
  EXPECT_EQ(scraped["quiver_deduplicated_items_total{lane=\"interactive\"}"], 1);
  EXPECT_EQ(scraped["quiver_deduplicated_items_total{lane=\"bulk\"}"], 0);
}

TEST_F(MetricsTest, BusyCounterNeverGoesBack) {
  prometheus::Registry registry;
  SchedulerMetrics scheduler(&registry);
  const auto busy = [&] {
    for (const prometheus::MetricFamily& family : registry.Collect()) {
      if (family.name == "quiver_device_busy_seconds_total") return family.metric[0].counter.value;
    }
    return -1.0;
  };
  QueueSnapshot running;
  running.passes.resize(1);
  running.passes[0].device_time = absl::Seconds(2);
  scheduler.Refresh(running);
  EXPECT_EQ(busy(), 2);
  // Gone from the snapshot, not yet reported.
  scheduler.Refresh(QueueSnapshot());
  EXPECT_EQ(busy(), 2);
  BatchReport batch;
  batch.duration = absl::Seconds(3);
  scheduler.OnBatch(batch);
  scheduler.Refresh(QueueSnapshot());
  EXPECT_EQ(busy(), 3);
}

TEST_F(MetricsTest, ModelAndPhaseAreShownOnceServing) {
  EXPECT_EQ(Scrape()["quiver_serving_phase{phase=\"starting\"}"], 1);
  const std::unique_ptr<Embedder> embedder = MakeFakeEmbedder();
  metrics_.SetModel(embedder->info(), absl::Seconds(3));
  state_.Serve(embedder.get());
  const Scraped scraped = Scrape();
  EXPECT_EQ(scraped["quiver_serving_phase{phase=\"starting\"}"], 0);
  EXPECT_EQ(scraped["quiver_serving_phase{phase=\"serving\"}"], 1);
  EXPECT_EQ(scraped["quiver_model_load_seconds"], 3);
  EXPECT_THAT(metrics_.Scrape(state_, http_, spans_),
              ContainsRegex("quiver_model_info\\{[^}]*model=\"fake-model\"[^}]*\\} 1"));
}

TEST_F(MetricsTest, ProcessIsDescribed) {
  const Scraped scraped = Scrape();
  EXPECT_GT(scraped["process_cpu_seconds_total"], 0);
  EXPECT_GT(scraped["process_resident_memory_bytes"], 1e6);
  EXPECT_GT(scraped["process_virtual_memory_bytes"], 1e6);
  EXPECT_GE(scraped["process_threads"], 1);
  EXPECT_GE(scraped["process_open_fds"], 3);
  EXPECT_GT(scraped["process_max_fds"], 3);
  EXPECT_NEAR(scraped["process_start_time_seconds"],
              absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()), 600);
}

TEST_F(MetricsTest, MayBeScrapedWhileItIsWritten) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this] {
      for (int i = 0; i < 500; ++i) {
        End(RequestReport());
        metrics_.scheduler_observer()->OnBatch(BatchReport());
      }
    });
  }
  for (int i = 0; i < 5; ++i) Scrape();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Scrape()["quiver_requests_total{code=\"OK\",lane=\"interactive\",rpc=\"Embed\"}"],
            2000);
}

}  // namespace
}  // namespace quiver
