RUN=/run/pydbt
PINS=/sys/fs/bpf/pydbt
STATE=/var/lib/pydbt

say() {
    echo "pydbt: $*"
}

# open_as_owner FILE COMMAND...: what a user has in its runtime folder is opened with no more rights than that user's, and not for
# long: it may be a pipe, a link to a device, or no file any more.
open_as_owner() {
    opened=$1
    shift
    case $opened in
    /run/user/*)
        owner=${opened#/run/user/}
        timeout 5 setpriv --reuid="${owner%%/*}" --regid=65534 --clear-groups "$@" 2>/dev/null
        ;;
    *) timeout 5 "$@" ;;
    esac
}

# The value of one key of the first line of JSON: entry FILE KEY. A user may have written it: no more than a line has, and nothing
# but what can be printed.
entry() {
    open_as_owner "$1" head -c 65536 "$1" |
        sed -n "s/.*\"$2\": *\"\{0,1\}\([^\",}]*\).*/\1/p;q" | LC_ALL=C tr -cd '[:print:]'
}

# One line for each controller, replica, supervisor and state directory in use: it holds a lock on its file. Those of users are
# told as well.
living() {
    for file in "$RUN"/[0-9]*-[0-9]* "$RUN"/state-* "$RUN"/secondary-* "$RUN"/supervisor-*.lock \
        /run/user/*/pydbt/secondary-* "$STATE"/*/lock; do
        if [ ! -f "$file" ] || [ -L "$file" ]; then
            continue
        fi
        held=0
        open_as_owner "$file" flock -n -E 77 "$file" true || held=$?
        [ "$held" -eq 77 ] || continue
        case ${file##*/} in
        supervisor-*) echo "a controller that runs what is configured" ;;
        lock) echo "a process that uses ${file%/lock}" ;;
        *) echo "process $(entry "$file" process): $(entry "$file" role) of $(entry "$file" place)" ;;
        esac
    done | sort -u
}

# In a chroot that has the machine's own /run and /sys, what goes on there belongs to the machine.
is_this_machine() {
    ! ischroot
}

# A folder, and nobody but root can change what is in it. Users can make theirs beside it where bpffs is open to all.
is_of_root() {
    [ -n "$(find "$1" -maxdepth 0 -type d -uid 0 ! -perm /022 2>/dev/null)" ]
}

# Folders of programs in the kernel: one per volume.
pinned() {
    is_of_root "$PINS" || return 0
    for folder in "$PINS"/*; do
        if is_of_root "$folder"; then
            echo "$folder"
        fi
    done
}

# /dev/mapper/NAME of each layer.
layers() {
    for file in /sys/block/dm-*/dm/uuid; do
        [ -f "$file" ] || continue
        uuid=$(cat "$file")
        case $uuid in PYDBT-LAYER-*) echo "/dev/mapper/${uuid#PYDBT-LAYER-}" ;; esac
    done
}

# State directories of replicas below /var/lib/pydbt.
replicas() {
    for folder in "$STATE"/*; do
        if [ -f "$folder/replica.json" ] && [ ! -L "$folder" ]; then
            echo "$folder"
        fi
    done
}

# Whether a replica's state directory may hold data that its target does not have: blocks that were kept aside, a record at
# the journal's checkpoint (formats: docs/reference/format.md), or what cannot be read.
holds_data() {
    if grep -q '"promoted": *"[^"]' "$1/replica.json"; then
        return 1 # all of it went to the target before
    fi
    if [ -e "$1/bad-blocks" ]; then
        return 0
    fi
    checkpoint=$(entry "$1/replica.json" checkpoint)
    segment=$(entry "$1/replica.json" segment_bytes)
    case $checkpoint:$segment in
    *[!0-9:]* | :* | *: | *:0) return 0 ;;
    esac
    at=$((checkpoint % segment))
    file=$1/journal/$(printf '%016x' $((checkpoint - at))).journal
    [ -e "$file" ] || return 1
    magic=$(od -An -v -t x1 -j "$at" -N 4 "$file" | tr -d ' \n')
    position=$(od -An -v -t u8 --endian=little -j $((at + 16)) -N 8 "$file" | tr -d ' \n')
    [ "$magic" = 50444a52 ] && [ "$position" = "$checkpoint" ]
}

# How to bring it onto the target.
finish() {
    target=$(entry "$1/status.json" target 2>/dev/null) || target=
    echo "controller secondary ${target:-TARGET} --state $1 --replay-only"
}
