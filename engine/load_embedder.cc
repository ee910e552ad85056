// Embedder::Create: from a Hugging Face directory to an engine.
#include <memory>
#include <utility>

#include "engine/embedder.h"
#include "engine/model_files.h"
#include "engine/run/create_backend.h"
#include "kernels/cpu/thread_pool.h"

namespace quiver {

absl::StatusOr<std::unique_ptr<Embedder>> Embedder::Create(Options options,
                                                           SchedulerObserver* observer) {
  absl::StatusOr<ModelFiles> files =
      OpenModelFiles(options.model_dir, options.name, options.quantization);
  if (!files.ok()) return files.status();

  // The backend first: it refuses what does not fit the configuration before all of the checkpoint
  // is read for its digest.
  absl::StatusOr<std::unique_ptr<Backend>> backend =
      CreateBackend(files->info.config, files->weights,
                    {.device = options.device,
                     .cuda = options.cuda,
                     .num_threads = options.num_threads,
                     .max_batch_tokens = options.max_batch_tokens,
                     .max_input_tokens = options.max_input_tokens,
                     .prefix_cache_bytes = options.prefix_cache_bytes});
  if (!backend.ok()) return backend.status();
  const int threads = options.num_threads > 0 ? options.num_threads : cpu::AvailableCores();
  files->info.weights_fingerprint = files->weights->Fingerprint(threads);

  return CreateWith(std::move(options), std::move(files->info), std::move(files->tokenizer),
                    *std::move(backend), observer);
}

}  // namespace quiver
