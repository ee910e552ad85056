// Which weights lie expanded in a region's room for them, so that the next chunk of rows finds
// those that the one before made. Host only.
#ifndef QUIVER_ENGINE_RUN_CUDA_EXPANDED_WEIGHTS_H_
#define QUIVER_ENGINE_RUN_CUDA_EXPANDED_WEIGHTS_H_

#include <cstdint>
#include <vector>

namespace quiver {

// A ring, the oldest making room. In the order of one stream: what Take() tells to be there holds
// for work that is put on the stream after it. To be used by one thread at a time.
class ExpandedWeights {
 public:
  struct Place {
    int64_t offset = 0;    // a multiple of 256
    bool is_made = false;  // else it is the caller's to make
  };
  // Of `bytes` made of the weight, at most `room`.
  Place Take(const void* weight, int64_t bytes, int64_t room);
  // Before the room is used otherwise, or after an error.
  void Forget() { *this = ExpandedWeights(); }

 private:
  struct Entry {
    const void* weight;
    int64_t bytes;
    int64_t offset;
  };
  std::vector<Entry> entries_;
  int64_t end_ = 0;  // of the newest
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_EXPANDED_WEIGHTS_H_
