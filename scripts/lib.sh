# Shared by the scripts beside it. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# mke2fs, losetup and the like live in sbin, which an ordinary user's PATH lacks.
# A Node that scripts/setup fetched because the system's is too old comes first.
PATH="$root/.lyceum/node/node_modules/.bin:$PATH:/usr/sbin:/sbin"
export PATH

say() { printf '%s\n' "$*"; }
die() {
    printf '%s\n' "$*" >&2
    exit 1
}
# Bold when a person reads it.
heading() {
    if [ -t 1 ]; then printf '\n\033[1m%s\033[0m\n' "$*"; else printf '\n%s\n' "$*"; fi
}
# version_at_least HAVE WANT
version_at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]
}
