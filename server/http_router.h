#ifndef QUIVER_SERVER_HTTP_ROUTER_H_
#define QUIVER_SERVER_HTTP_ROUTER_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/strings/string_view.h"
#include "server/http_types.h"

namespace quiver {

// Which handler answers which method and path. Filled before the server starts, then only read.
class HttpRouter {
 public:
  struct Route {
    // A longer body is refused, with 413, before it is read.
    int64_t max_body_bytes = 0;
    HttpHandler handler;
    // Whether the server's keys, if it has any, are asked for before the body is read.
    bool needs_key = false;
  };

  // `path` is matched as a whole; one that ends in "/*" stands for every longer path that begins
  // like it, unless a path of its own or a longer beginning is known. GET answers HEAD too.
  void Add(const std::string& method, const std::string& path, Route route) {
    routes_[path][method] = std::move(route);
  }

  struct Match {
    // Null if there is none.
    const Route* route = nullptr;
    // Then: the methods that `path` has, as the Allow header names them; empty if no such path.
    std::string allow;
  };
  Match Find(absl::string_view method, absl::string_view path) const;

 private:
  // By method.
  using Methods = std::map<std::string, Route>;

  // Null if there is no such path.
  const Methods* FindPath(absl::string_view path) const;

  // By path.
  std::map<std::string, Methods, std::less<>> routes_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_HTTP_ROUTER_H_
