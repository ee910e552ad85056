// cpu_encoder MODEL_DIR IDS [THREADS]: the C++ side of cpu_encoder.py. IDS holds one document a
// line, its token ids with spaces between. For each line of stdin, the path of a file, embeds all
// documents on the CPU backend in batches of at most its size, in order of their lines, writes the
// float32 vectors to that file and prints the seconds that embedding took.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>
#include <limits>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "engine/run/cpu_backend.h"

namespace {

using Clock = std::chrono::steady_clock;

std::vector<std::vector<quiver::TokenId>> ReadDocuments(const char* path) {
  std::vector<std::vector<quiver::TokenId>> documents;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream stream(line);
    documents.emplace_back();
    for (quiver::TokenId id; stream >> id;) documents.back().push_back(id);
  }
  return documents;
}

// Runs one batch to its end and appends its vectors; false after an error, which it prints.
bool Embed(quiver::Backend* backend, quiver::PackedBatch batch, std::string* vectors) {
  auto pass = backend->Begin(std::move(batch));
  absl::Status status = pass.status();
  if (status.ok()) status = (*pass)->Run(std::numeric_limits<int64_t>::max()).status();
  if (status.ok()) {
    for (const auto& vector : (*pass)->Finish()) {
      status.Update(vector.status());
      if (vector.ok()) vectors->append(vector->data);
    }
  }
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    std::fprintf(stderr, "usage: cpu_encoder MODEL_DIR IDS [THREADS]\n");
    return 2;
  }
  const auto config = quiver::LoadModelConfig(argv[1]);
  auto weights = quiver::Weights::Open(argv[1]);
  if (!config.ok() || !weights.ok()) {
    std::fprintf(stderr, "%s %s\n", config.status().ToString().c_str(),
                 weights.status().ToString().c_str());
    return 1;
  }
  const auto backend = quiver::CreateCpuBackend(
      *config, *std::move(weights), {.num_threads = argc == 4 ? std::atoi(argv[3]) : 0});
  if (!backend.ok()) {
    std::fprintf(stderr, "%s\n", backend.status().ToString().c_str());
    return 1;
  }
  const std::vector<std::vector<quiver::TokenId>> documents = ReadDocuments(argv[2]);
  std::printf("%s\n", (*backend)->info().device.c_str());
  std::fflush(stdout);

  for (std::string path; std::getline(std::cin, path);) {
    std::string vectors;
    const Clock::time_point start = Clock::now();
    const std::clock_t cpu_start = std::clock();
    quiver::PackedBatch batch;
    for (const std::vector<quiver::TokenId>& ids : documents) {
      if (batch.num_tokens() + static_cast<int>(ids.size()) > (*backend)->info().max_batch_tokens) {
        if (!Embed(backend->get(), std::exchange(batch, {}), &vectors)) return 1;
      }
      batch.Append(ids, {.dimensions = config->hidden_size});
    }
    if (!Embed(backend->get(), std::move(batch), &vectors)) return 1;
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    const double cpu_seconds = static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC;
    std::ofstream(path, std::ios::binary)
        .write(vectors.data(), static_cast<int64_t>(vectors.size()));
    std::printf("%.9f %.9f\n", seconds, cpu_seconds);
    std::fflush(stdout);
  }
  return 0;
}
