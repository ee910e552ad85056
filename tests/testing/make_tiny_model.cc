// Writes a tiny random model for trying programs out:
//   make_tiny_model DIR [--family qwen3|bert] [--shards N] [--fixtures DIR]
#include <iostream>
#include <string>

#include "CLI/CLI.hpp"
#include "tests/testing/tiny_checkpoint.h"

int main(int argc, char** argv) {
  CLI::App app("Writes a tiny random model as a Hugging Face directory.");
  std::string dir;
  std::string family = "qwen3";
  int shards = 1;
  std::string fixtures = "tests/fixtures";
  app.add_option("dir", dir, "Directory to write")->required();
  app.add_option("--family", family, "Model family")
      ->check(CLI::IsMember({"qwen3", "bert"}))
      ->capture_default_str();
  app.add_option("--shards", shards, "Files that the weights are spread over")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--fixtures", fixtures, "The repository's tests/fixtures")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  quiver::TinyModel model = family == "bert" ? quiver::TinyBert() : quiver::TinyModel();
  model.shards = shards;
  const absl::Status status = quiver::WriteTinyModel(model, dir, fixtures);
  if (!status.ok()) {
    std::cerr << status << "\n";
    return 1;
  }
  return 0;
}
