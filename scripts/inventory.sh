# shellcheck shell=bash
# What a run of the demo has on this machine, to be compared before and after. Sourced, never run.
#
# Only what is the run's is listed, so that whatever else happens here makes no difference: processes
# that work in its directory, name it or carry its mark, sockets that such processes had, the whole mount
# table, files in its directory, and control groups of its VMs. Uses $dir and $mark.

: "${dir=}" "${mark=}"

# Sockets and control groups of our processes, as note_what_runs found them.
seen_sockets=
seen_groups=

# Processes of ours.
our_pids() {
    local pid
    [ -d /proc/self ] || return 0
    {
        find /proc -maxdepth 2 -name cwd -lname "$dir/*" 2>/dev/null
        grep -lsF -e "$dir/" /proc/[0-9]*/cmdline 2>/dev/null || true
        grep -lsF -e "$mark" /proc/[0-9]*/environ 2>/dev/null || true
    } | cut -d/ -f3 | sort -nu | while read -r pid; do
        # The commands of this very search name the directory, too; they are gone by now.
        [ ! -e "/proc/$pid" ] || printf '%s\n' "$pid"
    done
}

# Remembers what our processes hold, to look for it when they are gone.
note_what_runs() {
    local pid
    for pid in $(our_pids); do
        seen_sockets+=$(find "/proc/$pid/fd" -lname 'socket:*' -printf '%l\n' 2>/dev/null |
            tr -dc '0-9\n')$'\n'
        seen_groups+=$(cut -d: -f3 "/proc/$pid/cgroup" 2>/dev/null | grep /hearth-vms/ || true)$'\n'
    done
    seen_sockets=$(grep . <<<"$seen_sockets" | sort -nu) || true
    seen_groups=$(grep . <<<"$seen_groups" | sort -u) || true
}

# One line for each thing there is: its kind, then what it is.
inventory() {
    local pid group
    [ -d /proc/self ] || { inventory_of_files; return; }
    for pid in $(our_pids); do
        printf 'process %s %s\n' "$pid" "$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline")"
    done
    sed 's/^/mount /' /proc/self/mounts
    [ -z "$seen_sockets" ] ||
        cat /proc/net/{unix,tcp,tcp6} 2>/dev/null |
        awk -v seen="$seen_sockets" '
            BEGIN { for (count = split(seen, list, "\n"); count; count--) is_seen[list[count]] = 1 }
            # The inode is the seventh column of the one, the tenth of the others.
            is_seen[$7] && /^[0-9a-f]*: / || is_seen[$10] { print "socket", $0 }'
    for group in $seen_groups; do
        find /sys/fs/cgroup -type d -path "*$group" -printf 'file %p\n' 2>/dev/null || true
    done
    inventory_of_files
}

# Whatever is in the directory, but for what outlives a server (the journal, snapshots, the records of VMs that
# somebody froze), and the output of the server itself.
inventory_of_files() {
    find "$dir" \( -path "$dir/state/journal" -o -path "$dir/state/snapshots" -o -path "$dir/out" \
        -o -path "$dir/log" -o -type d -exec test -e '{}/preserved.json' \; \) -prune \
        -o \( ! -type d -o -path "$dir/state/instances/*" \) \
        -printf 'file %p\n' 2>/dev/null | sort || true
}

# Lines of kind $1 in the inventory $2.
count() {
    grep -c "^$1 " "$2" || true
}
