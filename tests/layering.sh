#!/bin/sh
# The floors depend downward only: kernels <- engine <- server. Fails on an include that points up, and on a library that
# a floor must not know. Checks itself first: a check that cannot fail shows nothing.
set -eu
root=${1:-$(dirname "$0")/..}

# upward ROOT: prints the offending includes of the tree at ROOT.
upward() {
  grep -rnE '#include [<"](engine/|server/|absl/|nlohmann/|grpc|google/|prometheus/|boost/)' "$1/kernels" 2>/dev/null || true
  grep -rnE '#include [<"](server/|quiver/v1/|grpc|google/|prometheus/|boost/)' "$1/engine" 2>/dev/null || true
  grep -rnE '#include [<"]tools/' "$1/kernels" "$1/engine" "$1/server" 2>/dev/null || true
}

planted=$(mktemp -d)
trap 'rm -rf "$planted"' EXIT
mkdir -p "$planted/kernels" "$planted/engine" "$planted/server"
echo '#include "engine/types.h"' > "$planted/kernels/a.h"
echo '#include <grpcpp/grpcpp.h>' > "$planted/engine/b.h"
echo '#include "tools/quiver/c.h"' > "$planted/server/c.h"
[ "$(upward "$planted" | wc -l)" -eq 3 ] || { echo "the layering check misses planted includes"; exit 1; }

found=$(upward "$root")
[ -z "$found" ] || { echo "includes that point upward:"; echo "$found"; exit 1; }
