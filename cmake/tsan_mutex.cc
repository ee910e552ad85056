// Makes absl::Mutex visible to ThreadSanitizer. The distribution's Abseil is built without it, so
// that it sees no lock being taken and calls everything a race that such a mutex guards. In the
// programs of TSan builds these definitions go before the library's: they call them and say what
// happened. Waiting for a condition is done here, by looking again and again, as the library may
// evaluate a condition on another thread's behalf.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>
#include <unistd.h>

#include <string>

#include "absl/base/options.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"

namespace {

#define QUIVER_QUOTE(token) #token
#define QUIVER_QUOTE_VALUE(macro) QUIVER_QUOTE(macro)

// The library's own definition. `member` is mangled, without the namespaces, the inner of which is
// the distribution's choice.
template <typename Function>
Function* Next(const char* member) {
  const std::string inner = QUIVER_QUOTE_VALUE(ABSL_OPTION_INLINE_NAMESPACE_NAME);
  const std::string name = "_ZN4absl" + std::to_string(inner.size()) + inner + member;
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name.c_str()));
}

constexpr useconds_t kPollUs = 200;

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() {
  static const auto next = Next<void(Mutex*)>("5Mutex4LockEv");
  __tsan_mutex_pre_lock(this, 0);
  next(this);
  __tsan_mutex_post_lock(this, 0, 0);
}

void Mutex::Unlock() {
  static const auto next = Next<void(Mutex*)>("5Mutex6UnlockEv");
  __tsan_mutex_pre_unlock(this, 0);
  next(this);
  __tsan_mutex_post_unlock(this, 0);
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  while (!condition.Eval()) {
    if (Now() >= deadline) return false;
    Unlock();
    usleep(kPollUs);
    Lock();
  }
  return true;
}

void Mutex::Await(const Condition& condition) { AwaitWithDeadline(condition, InfiniteFuture()); }

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  return AwaitWithDeadline(condition, Now() + timeout);
}

void Mutex::LockWhen(const Condition& condition) {
  Lock();
  Await(condition);
}

void CondVar::Wait(Mutex* mutex) {
  static const auto next = Next<void(CondVar*, Mutex*)>("7CondVar4WaitEPNS0_5MutexE");
  __tsan_mutex_pre_unlock(mutex, 0);
  __tsan_mutex_post_unlock(mutex, 0);
  next(this, mutex);
  __tsan_mutex_pre_lock(mutex, 0);
  __tsan_mutex_post_lock(mutex, 0, 0);
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static const auto next =
      Next<bool(CondVar*, Mutex*, Time)>("7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");
  __tsan_mutex_pre_unlock(mutex, 0);
  __tsan_mutex_post_unlock(mutex, 0);
  const bool late = next(this, mutex, deadline);
  __tsan_mutex_pre_lock(mutex, 0);
  __tsan_mutex_post_lock(mutex, 0, 0);
  return late;
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  return WaitWithDeadline(mutex, Now() + timeout);
}

ABSL_NAMESPACE_END
}  // namespace absl
