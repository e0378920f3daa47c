# Shared by the scripts that build golden images. Source it; it needs bash.
# shellcheck shell=bash

set -euo pipefail
umask 022
export LC_ALL=C

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${LYCEUM_IMAGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lyceum/images}
STARTED=$SECONDS

step() { printf '[%4ds] %s\n' $((SECONDS - STARTED)) "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# need COMMAND PACKAGE: the command must be there, or the message says which package has it.
need() {
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ||
        die "the command '$1' is missing; install it: apt-get install $2"
}

need_grub() {
    need grub-mkimage grub-common
    [ -e /usr/lib/grub/i386-pc/boot.img ] ||
        die "GRUB's files for PC firmware are missing; install them: apt-get install grub-pc-bin"
}

# A directory for this run that is gone when the script ends, however it ends. So is a command in the background, if its
# number is in CHILD.
make_work_dir() {
    WORK=$(mktemp -d "${TMPDIR:-/var/tmp}/lyceum-image.XXXXXXXX")
    trap 'clean_up' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

clean_up() {
    if [ -n "${CHILD:-}" ] && kill "$CHILD" 2>/dev/null; then
        wait "$CHILD" || true
    fi
    rm -rf --one-file-system "$WORK"
}

# Builds the guest helper as a static program; prints its path.
build_helper() {
    if [ -n "${LYCEUM_GUEST:-}" ]; then
        [ -x "$LYCEUM_GUEST" ] || die "LYCEUM_GUEST=$LYCEUM_GUEST is not a program"
        printf '%s\n' "$LYCEUM_GUEST"
        return
    fi
    local target=x86_64-unknown-linux-gnu
    need cargo 'cargo (or rustup, see https://rustup.rs)'
    # Not position independent: it has no relocations to do then, and fewer pages of its own in every fork.
    (cd "$REPO" && RUSTFLAGS='-C target-feature=+crt-static -C relocation-model=static' \
        cargo build --quiet --profile guest --package lyceum-guest --target $target >&2) ||
        die "the guest helper does not build (crates/lyceum-guest); see cargo's message above"
    printf '%s\n' "${CARGO_TARGET_DIR:-$REPO/target}/$target/guest/lyceum-guest"
}

# fetch PACKAGE: downloads a Debian package of the running system's suite unless the cache has this version already;
# prints the file's path.
fetch() {
    local version arch file
    read -r version arch < <(apt-cache show --no-all-versions "$1" 2>/dev/null |
        awk '/^Version:/{v=$2} /^Architecture:/{a=$2} END{print v, a}') || true
    [ -n "${version:-}" ] || die "Debian's package lists do not know '$1'; refresh them: apt-get update"
    file=$CACHE/${1}_${version//:/%3a}_$arch.deb
    if [ ! -s "$file" ]; then
        mkdir -p "$CACHE"
        (cd "$CACHE" && apt-get download -qq -o APT::Sandbox::User=root "$1" >&2) ||
            die "can't download the package '$1'; refresh the package lists and try again: apt-get update"
        [ -s "$file" ] || die "apt-get download put '$1' elsewhere than expected ($file)"
    fi
    printf '%s\n' "$file"
}

# unpack PACKAGE DIRECTORY: fetches a Debian package and unpacks it there. Packages of Debian 13 have all below usr;
# /bin, /sbin and /lib are there for them as well.
unpack() {
    local deb name
    deb=$(fetch "$1")
    dpkg-deb -x "$deb" "$2"
    for name in bin sbin lib; do
        [ -e "$2/$name" ] || [ ! -d "$2/usr/$name" ] || ln -s "usr/$name" "$2/$name"
    done
}

# make_disk ROOT SIZE_MB OUT [MKE2FS OPTIONS...]: a bootable qcow2 of the directory ROOT.
#
# MBR and GRUB for PC firmware, then one ext4 partition. GRUB reads /boot/grub/grub.cfg on it. Needs neither a mount nor
# a loop device nor root.
make_disk() {
    local root=$1 size_mb=$2 out=$3 raw=$WORK/disk.raw part=$WORK/part.raw
    shift 3
    rm -f "$raw" "$part"
    truncate -s "${size_mb}M" "$raw"
    truncate -s "$((size_mb - 1))M" "$part"
    # Nothing is left to initialise when it is mounted first: that would write into every desktop's disk.
    PATH=$PATH:/sbin:/usr/sbin mke2fs -q -t ext4 -m 1 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard "$@" -d "$root" "$part" ||
        die "mke2fs could not put the files on a disk of $size_mb MB"
    printf 'label: dos\nstart=2048, type=83, bootable\n' | PATH=$PATH:/sbin:/usr/sbin sfdisk -q "$raw"
    dd if="$part" of="$raw" bs=1M seek=1 conv=notrunc,sparse status=none
    rm "$part"
    grub-mkimage -O i386-pc -p '(hd0,msdos1)/boot/grub' -o "$WORK/core.img" \
        biosdisk part_msdos ext2 normal configfile linux echo test search search_fs_uuid minicmd
    [ "$(stat -c %s "$WORK/core.img")" -lt $((2047 * 512)) ] || die "GRUB is too large for the gap before the partition"
    # The boot sector's defaults are what is wanted: the rest of GRUB in the sectors right after it.
    dd if=/usr/lib/grub/i386-pc/boot.img of="$raw" bs=440 count=1 conv=notrunc status=none
    dd if="$WORK/core.img" of="$raw" bs=512 seek=1 conv=notrunc status=none
    mkdir -p "$(dirname "$out")"
    qemu-img convert -f raw -O qcow2 -c -o compression_type=zstd,cluster_size=65536 "$raw" "$out.new"
    mv -f "$out.new" "$out"
    rm "$raw"
}
