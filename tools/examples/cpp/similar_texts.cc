// Embeds texts and shows how similar each is to the first.
//
//   similar_texts SERVER TEXT TEXT...        SERVER is HOST:PORT
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "quiver/client.h"

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: %s SERVER TEXT TEXT...\n", argv[0]);
    return 2;
  }
  auto client = quiver::Client::Create({.servers = {argv[1]}});
  if (!client.ok()) {
    std::fprintf(stderr, "%s\n", client.status().ToString().c_str());
    return 1;
  }
  auto reply = (*client)->Embed(std::vector<quiver::client::Input>(argv + 2, argv + argc));
  if (!reply.ok()) {
    std::fprintf(stderr, "%s\n", reply.status().ToString().c_str());
    return 1;
  }
  std::printf("%s, vector space %s\n", reply->model.c_str(), reply->space.fingerprint.c_str());

  bool all_ok = true;
  std::vector<float> first;
  for (size_t i = 0; i < reply->results.size(); ++i) {
    const char* text = argv[2 + i];
    if (!reply->results[i].ok()) {
      // What is wrong with one text is its own error; the others have their vectors.
      std::printf("        \"%s\": %s\n", text, reply->results[i].status().ToString().c_str());
      all_ok = false;
      continue;
    }
    const std::vector<float> vector = reply->results[i]->Floats();
    if (first.empty()) first = vector;
    // Vectors have length 1 unless EmbedOptions say otherwise, so this is the cosine.
    const float cosine = std::inner_product(first.begin(), first.end(), vector.begin(), 0.0f);
    std::printf("%+.3f  \"%s\"\n", cosine, text);
  }
  return all_ok ? 0 : 1;
}
