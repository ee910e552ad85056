#include "server/metric_names.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "quiver/v1/embed.grpc.pb.h"

namespace quiver {

absl::string_view RpcName(Rpc rpc) {
  switch (rpc) {
    case Rpc::kEmbed:
      return "Embed";
    case Rpc::kEmbedStream:
      return "EmbedStream";
    case Rpc::kTokenize:
      return "Tokenize";
    case Rpc::kGetModelInfo:
      return "GetModelInfo";
  }
  return "";
}

std::string RouteName(const RequestOrigin& origin) {
  if (!origin.route.empty()) return std::string(origin.route);
  return absl::StrCat(v1::EmbedService::service_full_name(), "/", RpcName(origin.rpc));
}

absl::string_view LaneName(Lane lane) {
  return lane == Lane::kInteractive ? "interactive" : "bulk";
}

const prometheus::Histogram::BucketBoundaries& TimeBuckets() {
  static const auto& buckets = *new prometheus::Histogram::BucketBoundaries(
      {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60});
  return buckets;
}

absl::Time SteadyNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace quiver
