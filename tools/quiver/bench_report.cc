#include "tools/quiver/bench_report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace quiver {
namespace {

using nlohmann::ordered_json;

constexpr double kGb = 1e-9;

std::string Bytes(int64_t bytes) {
  return bytes < 0 ? "unknown" : absl::StrFormat("%.2f GB", static_cast<double>(bytes) * kGb);
}

// A column that is empty where there is no such figure.
std::string Figure(double value, int decimals) {
  return value > 0 ? absl::StrFormat("%.*f", decimals, value) : "-";
}

ordered_json RowJson(const RowResult& row) {
  ordered_json json = {
      {"row", row.name}, {"sequences", row.lengths.size()}, {"tokens", row.tokens}};
  const auto [shortest, longest] = std::minmax_element(row.lengths.begin(), row.lengths.end());
  if (*shortest != *longest) json["lengths"] = row.lengths;
  if (!row.status.ok()) {
    json["error"] = row.status.ToString();
    return json;
  }
  json.update({{"batches", row.batches},
               {"passes", row.pass_ms.size()},
               {"median_ms", row.median_ms},
               {"best_ms", row.best_ms},
               {"tokens_per_s", row.tokens_per_s},
               {"sm_clock_mhz", row.sm_clock_mhz},
               {"power_watts", row.power_watts},
               {"steps", row.steps},
               {"median_step_ms", row.median_step_ms},
               {"longest_step_ms", row.longest_step_ms},
               {"pass_ms", row.pass_ms}});
  if (!row.ceilings.has_value()) return json;
  ordered_json linear = ordered_json::object();
  for (const auto& [tokens, rate] : row.ceilings->linear_tokens_per_s) {
    linear[absl::StrCat(tokens)] = rate;
  }
  json["ceilings"] = {{"linear_tokens_per_s", linear},
                      {"matmul_tflops", row.ceilings->matmul_tflops},
                      {"copy_tb_per_s", row.ceilings->copy_tb_per_s}};
  json["linear_ceiling_tokens_per_s"] = row.linear_ceiling_tokens_per_s;
  json["of_linear_ceiling"] = row.tokens_per_s / row.linear_ceiling_tokens_per_s;
  json["floor_ms"] = row.floor_ms;
  json["of_floor"] = row.floor_ms / row.median_ms;
  return json;
}

}  // namespace

std::string BenchTable(const BenchReport& report) {
  std::string table;
  absl::StrAppendFormat(&table, "%s, %s, %d layers, %s weights (%s)\n", report.model, report.dtype,
                        report.config.num_layers, report.random_weights ? "random" : "its own",
                        Bytes(report.weight_bytes));
  absl::StrAppendFormat(&table, "%s; batches of up to %d tokens; ready after %.2f s\n",
                        report.backend.device, report.backend.max_batch_tokens, report.load_s);
  if (!report.device_name.empty()) {
    absl::StrAppendFormat(&table, "%s, driver %s; device memory %s by the process, %s at most\n",
                          report.device_name, report.driver_version, Bytes(report.process_bytes),
                          Bytes(report.peak_bytes));
  }
  absl::StrAppendFormat(&table, "\n%-12s %8s %7s %7s %10s %10s %9s %9s %6s %9s %6s %7s %7s %6s\n",
                        "row", "tokens", "batches", "passes", "median ms", "best ms", "tokens/s",
                        "linear/s", "of it", "floor ms", "of it", "step ms", "longest", "MHz");
  for (const RowResult& row : report.rows) {
    if (!row.status.ok()) {
      absl::StrAppendFormat(&table, "%-12s %8d  %s\n", row.name, row.tokens, row.status.ToString());
      continue;
    }
    const double linear = row.linear_ceiling_tokens_per_s;
    absl::StrAppendFormat(
        &table, "%-12s %8d %7d %7d %10.3f %10.3f %9.0f %9s %6s %9s %6s %7s %7s %6s\n", row.name,
        row.tokens, row.batches, row.pass_ms.size(), row.median_ms, row.best_ms, row.tokens_per_s,
        Figure(linear, 0), Figure(linear > 0 ? row.tokens_per_s / linear : 0, 3),
        Figure(row.floor_ms, 3), Figure(row.floor_ms / row.median_ms, 3),
        Figure(row.median_step_ms, 3), Figure(row.longest_step_ms, 3), Figure(row.sm_clock_mhz, 0));
  }
  for (const RowResult& row : report.rows) {
    if (!row.ceilings.has_value()) continue;
    absl::StrAppendFormat(&table, "%sceilings beside %s:", &row == &report.rows.front() ? "\n" : "",
                          row.name);
    for (const auto& [tokens, rate] : row.ceilings->linear_tokens_per_s) {
      absl::StrAppendFormat(&table, " linear at %d %.0f/s,", tokens, rate);
    }
    absl::StrAppendFormat(&table, " 8192^3 %.0f TFLOP/s, copy %.2f TB/s, %.0f W\n",
                          row.ceilings->matmul_tflops, row.ceilings->copy_tb_per_s,
                          row.power_watts);
  }
  return table;
}

ordered_json BenchJson(const BenchReport& report) {
  const ModelConfig& config = report.config;
  ordered_json rows = ordered_json::array();
  for (const RowResult& row : report.rows) rows.push_back(RowJson(row));
  return {{"engine", "quiver"},
          {"date", absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone())},
          {"device",
           {{"backend", report.backend.device},
            {"name", report.device_name},
            {"driver", report.driver_version}}},
          {"model",
           {{"name", report.model},
            {"family", FamilyName(config.family)},
            {"hidden_size", config.hidden_size},
            {"intermediate_size", config.intermediate_size},
            {"layers", config.num_layers},
            {"heads", config.num_heads},
            {"kv_heads", config.num_kv_heads},
            {"head_dim", config.head_dim},
            {"vocab_size", config.vocab_size},
            {"max_positions", config.max_positions},
            {"dtype", report.dtype},
            {"random_weights", report.random_weights},
            {"weight_bytes", report.weight_bytes}}},
          {"max_batch_tokens", report.backend.max_batch_tokens},
          {"load_s", report.load_s},
          {"process_bytes", report.process_bytes},
          {"peak_bytes", report.peak_bytes},
          {"seconds_per_row", report.seconds_per_row},
          {"rows", rows}};
}

}  // namespace quiver
