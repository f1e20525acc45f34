# shellcheck shell=bash
# Kernel and shell of guests, of Debian's packages: what scripts that boot one have in common. Nothing is installed; the
# packages are unpacked below $work. KERNEL and BUSYBOX name files of one's own. A script defines `stop`.

say() { printf 'host: %s\n' "$*"; }

# fetch PACKAGE FOLDER: unpacks a Debian package of the host's own release, without installing it.
fetch() {
    local package=$1 folder=$2
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        stop "apt-get and dpkg-deb are not here to fetch $package: name files of your own," \
            "  KERNEL=/boot/vmlinuz... BUSYBOX=/bin/busybox"
    rm -rf "$folder.new" && mkdir -p "$folder.new"
    (cd "$folder.new" && apt-get download "$package" >/dev/null 2>"../download.log") ||
        stop "apt-get cannot fetch $package:" "$(<"$work/download.log")" "try 'apt-get update' first"
    dpkg-deb --extract "$folder.new"/*.deb "$folder.new"
    rm -f "$folder.new"/*.deb
    rm -rf "$folder" && mv "$folder.new" "$folder"
}

find_user_mode_kernel() {
    kernel=${KERNEL:-$work/user-mode/usr/bin/linux.uml}
    if [ -z "${KERNEL:-}" ] && [ ! -x "$kernel" ]; then
        say "fetching user-mode-linux"
        fetch user-mode-linux "$work/user-mode"
    fi
    [ -x "$kernel" ] || stop "the kernel $kernel cannot be run"
}

find_busybox() {
    busybox=${BUSYBOX:-$work/busybox/bin/busybox}
    [ -n "${BUSYBOX:-}" ] || [ -x "$busybox" ] || fetch busybox-static "$work/busybox"
    [ -x "$busybox" ] || stop "the shell $busybox cannot be run"
}
