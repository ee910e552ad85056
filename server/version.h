#ifndef QUIVER_SERVER_VERSION_H_
#define QUIVER_SERVER_VERSION_H_

namespace quiver {

// As CMake's project() states it.
inline constexpr char kServerVersion[] = QUIVER_VERSION;

}  // namespace quiver

#endif  // QUIVER_SERVER_VERSION_H_
