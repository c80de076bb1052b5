# shellcheck shell=bash
# What scripts/demo and scripts/test have in common: telling, and making sure of what they need.

say() { printf '==> %s\n' "$*"; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

is_root() { [[ $(id -u) == 0 ]]; }

# Rust and a C compiler (aws-lc and SQLite are C). We do not install a Rust toolchain behind anyone's
# back.
need_toolchain() {
    if ! command -v cargo >/dev/null && [[ -x $HOME/.cargo/bin/cargo ]]; then
        PATH=$HOME/.cargo/bin:$PATH
    fi
    command -v cargo >/dev/null ||
        fail "Rust is missing: install a toolchain of 1.95 or newer (https://rustup.rs) and run this again."
    need cc gcc libc6-dev
    need setpriv util-linux
}

# need COMMAND-OR-FILE PACKAGE...: remembers the packages when the command or file is missing.
missing=()
need() {
    local wanted=$1
    shift
    case $wanted in
        /*) [[ -e $wanted ]] || missing+=("$@") ;;
        *) command -v "$wanted" >/dev/null || missing+=("$@") ;;
    esac
}

# The tools that build and inspect a world of namespaces.
need_network_tools() {
    # Debian keeps them where a plain user's PATH does not look.
    PATH=$PATH:/usr/sbin:/sbin
    need ip iproute2
    need iptables-restore iptables
    need nft nftables
    need conntrack conntrack
    need nsenter util-linux
    need unshare util-linux
    need /usr/lib/cni/ptp containernetworking-plugins
    need /usr/lib/cni/host-local containernetworking-plugins
}

# Installs what was found missing, or says so in a sentence.
install_missing() {
    ((${#missing[@]})) || return 0
    local packages
    packages=$(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')
    is_root || fail "these Debian packages are missing: ${packages}- as root, this script installs them."
    command -v apt-get >/dev/null ||
        fail "these packages are missing, and there is no apt-get to install them with: $packages"
    say "installing Debian packages: $packages"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # one word per package
    { apt-get update -q && apt-get install -y -q --no-install-recommends $packages; } </dev/null ||
        fail "these Debian packages could not be installed: $packages"
}

# Runs cargo so that it does not outlive this script, whatever ends it; what cargo runs is tied to cargo
# by the sandbox.
tied_cargo() { setpriv --pdeathsig TERM -- cargo "$@" </dev/null; }

# Where cargo puts what it builds.
target_directory() {
    cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}
