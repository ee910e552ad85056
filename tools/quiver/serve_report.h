#ifndef QUIVER_TOOLS_QUIVER_SERVE_REPORT_H_
#define QUIVER_TOOLS_QUIVER_SERVE_REPORT_H_

#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "quiver/v1/embed.pb.h"
#include "tools/quiver/load_recorder.h"

namespace quiver {

// What a load test has found out.
struct ServeReport {
  std::string server;
  v1::ModelInfo model;
  // A run for each rate of a sweep, else one; in each a result for each workload.
  std::vector<std::vector<LoadResult>> runs;
};

// Columns for people.
std::string ServeTable(const ServeReport& report);

// Everything but the single latencies, with the date (UTC).
nlohmann::ordered_json ServeJson(const ServeReport& report);

// An SVG picture of the first workload's latency (median, P95, P99; a logarithmic axis) against its
// rate, a point for each run.
std::string LatencyChart(const ServeReport& report);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_SERVE_REPORT_H_
