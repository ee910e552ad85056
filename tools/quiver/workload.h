#ifndef QUIVER_TOOLS_QUIVER_WORKLOAD_H_
#define QUIVER_TOOLS_QUIVER_WORKLOAD_H_

#include <cstdint>
#include <random>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/types.h"

namespace quiver {

// One kind of requests that a load test sends. Either they arrive at `rate` whatever becomes of
// those before them (an open loop), or `outstanding` of them are always on their way (a closed
// loop).
struct Workload {
  std::string name = "load";
  Lane lane = Lane::kInteractive;
  // One EmbedStream, each item a request of its own, rather than an Embed each.
  bool stream = false;
  // Requests a second; 0 in a closed loop.
  double rate = 0;
  // Gaps of one length rather than exponential ones (a Poisson process).
  bool even = false;
  int outstanding = 0;
  // Inputs of an Embed.
  int items = 1;
  // Tokens of an input, uniform between these.
  int min_tokens = 32;
  int max_tokens = 32;
  // Of those the first, which all inputs have in common, as they have an instruction.
  int shared_tokens = 0;
  // Texts rather than token ids, so that the server tokenizes: words, of which most tokenizers make
  // a token each.
  bool text = false;
  std::string tenant;
  // Of each Embed, from when it is sent; infinite for none.
  absl::Duration deadline = absl::InfiniteDuration();
  // A request that takes longer adds nothing to the goodput.
  absl::Duration target = absl::InfiniteDuration();

  bool open() const { return rate > 0; }
};

// The keys of ParseWorkload, for a command's help.
inline constexpr char kWorkloadKeys[] =
    "name=TEXT, rate=REQUESTS_PER_S or outstanding=N, tokens=N or N-M, items=N, lane=interactive "
    "or\n"
    "bulk, shared=N (tokens that all inputs begin with), text (words, not token ids), stream,\n"
    "even (gaps; else Poisson), tenant=TEXT, deadline=MS, target=MS (for goodput)";

// "name=query,rate=50,tokens=32": keys as above, separated by commas. A stream is of the bulk lane
// unless `lane` says otherwise. INVALID_ARGUMENT names the key, what it may be and what it is.
absl::StatusOr<Workload> ParseWorkload(absl::string_view text);

// When the requests of an open loop are due.
class Arrivals {
 public:
  // `rate` is above 0.
  Arrivals(double rate, bool even, uint64_t seed) : random_(seed), gap_(rate), even_(even) {}

  // The next one, in seconds from the beginning.
  double Next() {
    at_ += even_ ? 1 / gap_.lambda() : gap_(random_);
    return at_;
  }

 private:
  std::mt19937_64 random_;
  std::exponential_distribution<double> gap_;
  const bool even_;
  double at_ = 0;
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_WORKLOAD_H_
