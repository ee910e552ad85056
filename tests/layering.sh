#!/bin/sh
# The floors depend downward only: kernels <- engine <- server; the client library on none of them. Fails on an include that points up, and on a library that
# a floor must not know. Checks itself first: a check that cannot fail shows nothing.
set -eu
root=${1:-$(dirname "$0")/..}

# upward ROOT: prints the offending includes of the tree at ROOT.
upward() {
  grep -rnE '#include [<"](engine/|server/|absl/|nlohmann/|grpc|google/|prometheus/|boost/)' "$1/kernels" 2>/dev/null || true
  grep -rnE '#include [<"](server/|quiver/v1/|grpc|google/|prometheus/|boost/)' "$1/engine" 2>/dev/null || true
  grep -rnE '#include [<"](kernels/|engine/|server/|tools/quiver/)' "$1/tools/client" 2>/dev/null || true
  # Models by name come to the CLI as well.
  grep -rnE '#include [<"](kernels/|engine/|server/[a-z_]*\.h|quiver/|grpc|google/|prometheus/|boost/)' "$1/server/hub" 2>/dev/null || true
  # What is installed knows nothing of gRPC, of generated code, or of the tree.
  grep -rnE '#include "' "$1/tools/client/include" 2>/dev/null | grep -vE '"(absl/|quiver/client)' || true
  grep -rnE '#include [<"]tools/' "$1/kernels" "$1/engine" "$1/server" 2>/dev/null || true
}

planted=$(mktemp -d)
trap 'rm -rf "$planted"' EXIT
mkdir -p "$planted/kernels" "$planted/engine" "$planted/server/hub" "$planted/tools/client/include"
echo '#include "engine/types.h"' > "$planted/kernels/a.h"
echo '#include <grpcpp/grpcpp.h>' > "$planted/engine/b.h"
echo '#include "tools/quiver/c.h"' > "$planted/server/c.h"
echo '#include "engine/types.h"' > "$planted/tools/client/d.h"
echo '#include "grpcpp/grpcpp.h"' > "$planted/tools/client/include/e.h"
echo '#include "server/log.h"' > "$planted/server/hub/f.h"
[ "$(upward "$planted" | wc -l)" -eq 6 ] || { echo "the layering check misses planted includes"; exit 1; }

found=$(upward "$root")
[ -z "$found" ] || { echo "includes that point upward:"; echo "$found"; exit 1; }
