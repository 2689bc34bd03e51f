# shellcheck shell=bash
# What the scripts share. Sourced, never run.

# Says something to whoever runs the script; answers and data go to standard output.
say() {
    printf '%s\n' "$*" >&2
}

die() {
    say "${0##*/}: $*"
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

is_root() {
    [ "$(id -u)" -eq 0 ]
}

is_debian() {
    [ -r /etc/os-release ] && have apt-get && have dpkg && (
        # shellcheck disable=SC1091
        . /etc/os-release
        [ "${ID:-}" = debian ]
    )
}

# The release's name: bookworm, trixie ...
debian_codename() {
    # shellcheck disable=SC1091
    (. /etc/os-release && printf '%s\n' "${VERSION_CODENAME:-}")
}

# The channel that rust-toolchain.toml in directory $1 pins.
pinned_rust() {
    sed -n 's/^channel *= *"\(.*\)"/\1/p' "$1/rust-toolchain.toml"
}

# The versions of package $1 that the package lists know, one "version suite" a line, newest first.
# What follows is given to apt-cache.
known_versions() {
    apt-cache "${@:2}" madison "$1" 2>/dev/null |
        awk -F' *[|] *' '!/ Sources$/ { split($3, at, " "); sub("/.*", "", at[2]); print $2, at[2] }'
}
