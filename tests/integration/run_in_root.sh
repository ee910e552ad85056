#!/usr/bin/env bash
# run_in_root.sh ROOT MODEL CACHE COMMAND...: runs COMMAND in ROOT as Kubernetes' Deployment has it: read-only, as user 65532
# without privileges, /model read-only, /cache writable, nothing else. In a mount namespace of its own, as root.
set -euo pipefail
root=$1 model=$2 cache=$3
shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --bind "$model" "$root/model"
mount -o remount,bind,ro "$root/model"
mount --bind "$cache" "$root/cache"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null zero urandom; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mount -o remount,ro "$root/dev"
exec env -i PATH=/opt/quiver/bin:/usr/sbin:/usr/bin setpriv --no-new-privs chroot --userspec=65532:65532 --groups=65532 "$root" "$@"
