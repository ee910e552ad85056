# Shared by the scripts in tools/: messages, privileges, and the packages and folders that they agree on. Sourced by bash.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/quiver"

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# as_root COMMAND...: runs it with the privileges that installing needs.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo > /dev/null; then
    sudo "$@"
  else
    die "installing packages needs root: run as root, or install sudo"
  fi
}

# Whether this machine has a working NVIDIA driver.
has_nvidia_driver() {
  [ -e /proc/driver/nvidia/version ] || { command -v nvidia-smi > /dev/null && nvidia-smi -L > /dev/null 2>&1; }
}

# Path of nvcc if the machine has a CUDA toolkit of version 13 or newer.
find_nvcc() {
  local candidate
  for candidate in "${CUDACXX:-}" "$(command -v nvcc || true)" "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc"; do
    if [ -n "$candidate" ] && [ -x "$candidate" ] &&
      [ "$("$candidate" --version | sed -n 's/.*release \([0-9]*\)\..*/\1/p')" -ge 13 ]; then
      echo "$candidate"
      return
    fi
  done
}

# Jobs for a build: every core, but no more than memory bears (a gRPC source takes about 1 GiB).
build_jobs() {
  local cores memory_gib
  cores=$(nproc)
  memory_gib=$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
  [ "$memory_gib" -ge 1 ] || memory_gib=1
  echo $((cores < memory_gib ? cores : memory_gib))
}

# find_libraries PROGRAM...: the libraries they load that must go along with them, one "SONAME PATH" a line. Everything
# but glibc, which must fit the kernel and the machine's name service, and NVIDIA's, which must fit the driver.
find_libraries() {
  local program
  for program in "$@"; do
    ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// {print $1, $3}'
  done | sort -u |
    grep -vE '^(ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libresolv|libcuda|libnvidia-.*|libcublas|libcublasLt|libcudart)\.so' ||
    true
}
