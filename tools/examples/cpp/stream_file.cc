// Embeds the lines of a file over a stream, spread over one or more servers, and prints one line
// for each: its number and the first values of its vector, or its error. They come as they
// complete.
//
//   stream_file FILE SERVER...               SERVER is HOST:PORT
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>

#include "quiver/client.h"

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s FILE SERVER...\n", argv[0]);
    return 2;
  }
  std::ifstream file(argv[1]);
  if (!file) {
    std::fprintf(stderr, "%s cannot be read\n", argv[1]);
    return 1;
  }
  auto client = quiver::Client::Create({.servers = {argv + 2, argv + argc}});
  if (!client.ok()) {
    std::fprintf(stderr, "%s\n", client.status().ToString().c_str());
    return 1;
  }
  auto opened = (*client)->OpenStream({.truncation = quiver::client::Truncation::kRight});
  if (!opened.ok()) {
    std::fprintf(stderr, "%s\n", opened.status().ToString().c_str());
    return 1;
  }
  quiver::client::EmbedStream& stream = **opened;

  // One thread writes while this one reads: Write waits for room that Read makes.
  std::thread writer([&] {
    uint64_t number = 0;
    for (std::string line; std::getline(file, line);) {
      if (!stream.Write(line, ++number)) break;
    }
    stream.WritesDone();
  });
  bool all_ok = true;
  quiver::client::StreamResult result;
  while (stream.Read(&result)) {
    if (result.embedding.ok()) {
      const std::vector<float> vector = result.embedding->Floats();
      std::printf("%" PRIu64 "\t%.6f %.6f ...\n", result.key, vector[0], vector[1]);
    } else {
      std::printf("%" PRIu64 "\t%s\n", result.key, result.embedding.status().ToString().c_str());
      all_ok = false;
    }
  }
  writer.join();
  const absl::Status end = stream.Finish();
  if (!end.ok()) std::fprintf(stderr, "%s\n", end.ToString().c_str());
  return end.ok() && all_ok ? 0 : 1;
}
