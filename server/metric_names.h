// What the parts of the metrics have in common: label values, buckets, the clock of sliding
// windows.
#ifndef QUIVER_SERVER_METRIC_NAMES_H_
#define QUIVER_SERVER_METRIC_NAMES_H_

#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "server/request_observer.h"

namespace quiver {

// As embed.proto names it: "Embed".
absl::string_view RpcName(Rpc rpc);
// What the client called: "quiver.v1.EmbedService/Embed", or the path over HTTP.
std::string RouteName(const RequestOrigin& origin);
// "interactive", "bulk".
absl::string_view LaneName(Lane lane);

// Seconds, from 0.5 ms to 60 s.
const prometheus::Histogram::BucketBoundaries& TimeBuckets();

// Goes on evenly whatever happens to the time of day.
absl::Time SteadyNow();

// A name's series are added to its family. Each name once.
inline prometheus::Family<prometheus::Counter>& AddCounters(prometheus::Registry* registry,
                                                            const std::string& name,
                                                            const std::string& help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(*registry);
}
inline prometheus::Family<prometheus::Gauge>& AddGauges(prometheus::Registry* registry,
                                                        const std::string& name,
                                                        const std::string& help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(*registry);
}
inline prometheus::Family<prometheus::Histogram>& AddHistograms(prometheus::Registry* registry,
                                                                const std::string& name,
                                                                const std::string& help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(*registry);
}

}  // namespace quiver

#endif  // QUIVER_SERVER_METRIC_NAMES_H_
