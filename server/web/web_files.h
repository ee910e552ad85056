// The files beside this one, as the build put them into the program.
#ifndef QUIVER_SERVER_WEB_WEB_FILES_H_
#define QUIVER_SERVER_WEB_WEB_FILES_H_

namespace quiver {

// A page in itself: it loads nothing.
extern const char kIndexHtml[];

// OpenAPI 3.1, without what a server knows only when it runs.
extern const char kOpenApiJson[];

}  // namespace quiver

#endif  // QUIVER_SERVER_WEB_WEB_FILES_H_
