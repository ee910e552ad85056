#include "server/device_metrics.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/metric_names.h"

namespace quiver {
namespace {

// "cuda:0" of "cuda:0 (NVIDIA H200, sm_90, wgmma)".
std::string ShortName(absl::string_view device) {
  return std::string(device.substr(0, device.find(' ')));
}

}  // namespace

DeviceMetrics::DeviceMetrics(prometheus::Registry* registry, std::unique_ptr<GpuMonitor> monitor)
    : monitor_(std::move(monitor)),
      purpose_bytes_(AddGauges(registry, "quiver_device_memory_bytes",
                               "Memory of the device that this process took at its start, by "
                               "purpose.")),
      budget_bytes_(AddGauges(registry, "quiver_device_memory_budget_bytes",
                              "Most memory of the device that this process may take.")),
      memory_total_(AddGauges(registry, "quiver_gpu_memory_total_bytes", "Memory of the card.")),
      memory_used_(AddGauges(registry, "quiver_gpu_memory_used_bytes",
                             "Memory of the card in use, by any process.")),
      memory_free_(AddGauges(registry, "quiver_gpu_memory_free_bytes",
                             "Memory of the card that nobody uses.")),
      utilization_(AddGauges(registry, "quiver_gpu_utilization_ratio",
                             "Part of the time in which anything ran on the card.")),
      power_(AddGauges(registry, "quiver_gpu_power_watts", "Power that the card draws.")),
      temperature_(
          AddGauges(registry, "quiver_gpu_temperature_celsius", "Temperature of the card.")) {
  Refresh();
}

const DeviceMetrics::Card& DeviceMetrics::CardOf(const GpuState& gpu) {
  const auto [card, is_new] = cards_.try_emplace(gpu.uuid);
  if (is_new) {
    const prometheus::Labels labels = {{"uuid", gpu.uuid}, {"name", gpu.name}};
    card->second = {&memory_total_.Add(labels), &memory_used_.Add(labels),
                    &memory_free_.Add(labels),  &utilization_.Add(labels),
                    &power_.Add(labels),        &temperature_.Add(labels)};
  }
  return card->second;
}

void DeviceMetrics::SetBackend(const BackendInfo& info) {
  const std::string device = ShortName(info.device);
  for (const MemoryUse& use : info.memory) {
    purpose_bytes_.Add({{"device", device}, {"purpose", use.purpose}})
        .Set(static_cast<double>(use.bytes));
  }
  if (info.memory_budget_bytes > 0) {
    budget_bytes_.Add({{"device", device}}).Set(static_cast<double>(info.memory_budget_bytes));
  }
  if (cards_.count(info.device_uuid) == 0) return;
  for (auto it = cards_.begin(); it != cards_.end();) {
    if (it->first == info.device_uuid) {
      ++it;
      continue;
    }
    memory_total_.Remove(it->second.total_bytes);
    memory_used_.Remove(it->second.used_bytes);
    memory_free_.Remove(it->second.free_bytes);
    utilization_.Remove(it->second.utilization);
    power_.Remove(it->second.power);
    temperature_.Remove(it->second.temperature);
    it = cards_.erase(it);
  }
  own_card_ = info.device_uuid;
}

void DeviceMetrics::Refresh() {
  if (monitor_ == nullptr) return;
  for (const GpuState& gpu : monitor_->Gpus()) {
    if (!own_card_.empty() && gpu.uuid != own_card_) continue;
    const Card& card = CardOf(gpu);
    card.total_bytes->Set(gpu.memory_total_bytes);
    card.used_bytes->Set(gpu.memory_used_bytes);
    card.free_bytes->Set(gpu.memory_free_bytes);
    card.utilization->Set(gpu.utilization);
    card.power->Set(gpu.power_watts);
    card.temperature->Set(gpu.temperature_celsius);
  }
}

}  // namespace quiver
