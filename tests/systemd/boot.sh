#!/usr/bin/env bash
# Boots the Debian in a folder in a mount namespace of its own: boot.sh BASE MERGED. What the guest writes is kept in
# memory, and BASE stays as it is. It has a network of its own, with a loopback interface only.
set -euo pipefail
base=$1 merged=$2

mount --make-rprivate /
# systemd wants version 2 of cgroups for itself; hosts that have version 1 beside it have it elsewhere.
if [ "$(stat --file-system --format %T /sys/fs/cgroup)" != cgroup2fs ]; then
    umount --recursive /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
group=/sys/fs/cgroup/tidegate-test-$$
mkdir "$group"
echo $$ >"$group/cgroup.procs"

mount -t tmpfs tmpfs "$merged"
mkdir "$merged"/{upper,work,root}
mount -t overlay -o "lowerdir=$base,upperdir=$merged/upper,workdir=$merged/work" overlay "$merged/root"
# What the guest may call is what its units say.
exec systemd-nspawn --quiet --register=no --keep-unit --private-network --machine=tidegate --console=pipe \
    --system-call-filter='io_uring_setup io_uring_enter io_uring_register' --directory="$merged/root" --boot
