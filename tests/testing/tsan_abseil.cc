// Tells ThreadSanitizer what Abseil's locks and reference counts order. The distribution's Abseil
// is not instrumented, so that without this every access under an absl::Mutex, gRPC's own included,
// looks like a race. Linked into each program of the tsan preset: a program's functions come before
// a shared library's of the same name, and these call the library's. An unlock releases and a lock
// acquires, no more: what is ordered by nothing else still is a race.
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
}

#define QUIVER_TEXT(x) #x
#define QUIVER_EXPANDED_TEXT(x) QUIVER_TEXT(x)

namespace {

// The library's function of a name mangled after the namespace, which differs between
// distributions.
void* Library(const char* prefix, const char* rest) {
  const char* version = QUIVER_EXPANDED_TEXT(ABSL_OPTION_INLINE_NAMESPACE_NAME);
  const std::string name =
      std::string(prefix) + "4absl" + std::to_string(std::strlen(version)) + version + rest;
  void* function = dlsym(RTLD_NEXT, name.c_str());
  if (function == nullptr) std::abort();
  return function;
}

// Abseil's own search for deadlocks keeps a graph under a lock that cannot be told of here, and
// ThreadSanitizer searches for them itself.
const bool kWithoutGraph = [] {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  return true;
}();

void* Address(const void* object) { return const_cast<void*>(object); }

}  // namespace

// Calls the library's method, whose object is the first argument.
#define QUIVER_CALL(prefix, rest, result, types, ...)                                     \
  ([&]() -> result {                                                                      \
    static const auto library = reinterpret_cast<result(*) types>(Library(prefix, rest)); \
    return library(__VA_ARGS__);                                                          \
  }())

namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() {
  QUIVER_CALL("_ZN", "5Mutex4LockEv", void, (Mutex*), this);
  __tsan_acquire(this);
}

void Mutex::Unlock() {
  __tsan_release(this);
  QUIVER_CALL("_ZN", "5Mutex6UnlockEv", void, (Mutex*), this);
}

bool Mutex::TryLock() {
  const bool locked = QUIVER_CALL("_ZN", "5Mutex7TryLockEv", bool, (Mutex*), this);
  if (locked) __tsan_acquire(this);
  return locked;
}

void Mutex::ReaderLock() {
  QUIVER_CALL("_ZN", "5Mutex10ReaderLockEv", void, (Mutex*), this);
  __tsan_acquire(this);
}

void Mutex::ReaderUnlock() {
  __tsan_release(this);
  QUIVER_CALL("_ZN", "5Mutex12ReaderUnlockEv", void, (Mutex*), this);
}

void Mutex::LockWhen(const Condition& condition) {
  QUIVER_CALL("_ZN", "5Mutex8LockWhenERKNS0_9ConditionE", void, (Mutex*, const Condition&), this,
              condition);
  __tsan_acquire(this);
}

bool Mutex::LockWhenWithDeadline(const Condition& condition, Time deadline) {
  const bool met = QUIVER_CALL("_ZN", "5Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE",
                               bool, (Mutex*, const Condition&, Time), this, condition, deadline);
  __tsan_acquire(this);
  return met;
}

void Mutex::Await(const Condition& condition) {
  __tsan_release(this);
  QUIVER_CALL("_ZN", "5Mutex5AwaitERKNS0_9ConditionE", void, (Mutex*, const Condition&), this,
              condition);
  __tsan_acquire(this);
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  __tsan_release(this);
  const bool met =
      QUIVER_CALL("_ZN", "5Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE", bool,
                  (Mutex*, const Condition&, Duration), this, condition, timeout);
  __tsan_acquire(this);
  return met;
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  __tsan_release(this);
  const bool met = QUIVER_CALL("_ZN", "5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE", bool,
                               (Mutex*, const Condition&, Time), this, condition, deadline);
  __tsan_acquire(this);
  return met;
}

// Whoever unlocks looks at the conditions of those that wait, with the lock held but beyond the
// release above.
bool Condition::Eval() const {
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  const bool met = QUIVER_CALL("_ZNK", "9Condition4EvalEv", bool, (const Condition*), this);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  return met;
}

void CondVar::Wait(Mutex* mutex) {
  __tsan_release(mutex);
  QUIVER_CALL("_ZN", "7CondVar4WaitEPNS0_5MutexE", void, (CondVar*, Mutex*), this, mutex);
  __tsan_acquire(mutex);
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  __tsan_release(mutex);
  const bool expired = QUIVER_CALL("_ZN", "7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE",
                                   bool, (CondVar*, Mutex*, Duration), this, mutex, timeout);
  __tsan_acquire(mutex);
  return expired;
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  __tsan_release(mutex);
  const bool expired = QUIVER_CALL("_ZN", "7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE", bool,
                                   (CondVar*, Mutex*, Time), this, mutex, deadline);
  __tsan_acquire(mutex);
  return expired;
}

void Notification::Notify() {
  __tsan_release(this);
  QUIVER_CALL("_ZN", "12Notification6NotifyEv", void, (Notification*), this);
}

void Notification::WaitForNotification() const {
  QUIVER_CALL("_ZNK", "12Notification19WaitForNotificationEv", void, (const Notification*), this);
  __tsan_acquire(Address(this));
}

bool Notification::WaitForNotificationWithTimeout(Duration timeout) const {
  const bool notified =
      QUIVER_CALL("_ZNK", "12Notification30WaitForNotificationWithTimeoutENS0_8DurationE", bool,
                  (const Notification*, Duration), this, timeout);
  if (notified) __tsan_acquire(Address(this));
  return notified;
}

bool Notification::WaitForNotificationWithDeadline(Time deadline) const {
  const bool notified =
      QUIVER_CALL("_ZNK", "12Notification31WaitForNotificationWithDeadlineENS0_4TimeE", bool,
                  (const Notification*, Time), this, deadline);
  if (notified) __tsan_acquire(Address(this));
  return notified;
}

// Counts references down in the library. Whoever frees the message comes after all who read it.
void Status::UnrefNonInlined(uintptr_t rep) {
  void* const message = reinterpret_cast<void*>(rep);
  __tsan_release(message);
  __tsan_acquire(message);
  QUIVER_CALL("_ZN", "6Status15UnrefNonInlinedEm", void, (uintptr_t), rep);
}

ABSL_NAMESPACE_END
}  // namespace absl
