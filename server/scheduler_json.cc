#include "server/scheduler_json.h"

#include "nlohmann/json.hpp"
#include "server/metric_names.h"

namespace quiver {
namespace {

using nlohmann::ordered_json;

ordered_json LaneJson(const QueueSnapshot::LaneState& lane) {
  ordered_json tenants = ordered_json::array();
  for (const QueueSnapshot::TenantState& tenant : lane.largest_tenants) {
    tenants.push_back(
        {{"tenant", tenant.name}, {"sequences", tenant.sequences}, {"tokens", tenant.tokens}});
  }
  return {{"items", lane.tasks},
          {"tokens", lane.tokens},
          {"oldest_age_ms", absl::ToDoubleMilliseconds(lane.oldest_age)},
          {"predicted_wait_ms", absl::ToDoubleMilliseconds(lane.predicted_wait)},
          {"tenants", lane.tenants},
          {"largest_tenants", tenants}};
}

ordered_json PassJson(const QueueSnapshot::PassState& pass) {
  return {{"lane", std::string(LaneName(pass.lane))},
          {"items", pass.tasks},
          {"sequences", pass.sequences},
          {"tokens", pass.tokens},
          {"age_ms", absl::ToDoubleMilliseconds(pass.age)},
          {"device_time_ms", absl::ToDoubleMilliseconds(pass.device_time)},
          {"predicted_ms", absl::ToDoubleMilliseconds(pass.predicted)},
          {"overtaken", pass.overtaken}};
}

}  // namespace

std::string SchedulerJson(const QueueSnapshot& snapshot) {
  ordered_json queues = ordered_json::object();
  for (const Lane lane : {Lane::kInteractive, Lane::kBulk}) {
    queues[std::string(LaneName(lane))] = LaneJson(snapshot.lanes[static_cast<size_t>(lane)]);
  }
  ordered_json passes = ordered_json::array();
  for (const QueueSnapshot::PassState& pass : snapshot.passes) passes.push_back(PassJson(pass));
  const CostModel& cost = snapshot.cost_model;
  const ordered_json json = {{"draining", snapshot.draining},
                             {"queues", queues},
                             {"passes", passes},
                             {"cost_model",
                              {{"fixed_us", cost.fixed_us()},
                               {"token_us", cost.token_us()},
                               {"token_pair_us", cost.pair_us()}}}};
  // A tenant's name is any bytes.
  return json.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace quiver
