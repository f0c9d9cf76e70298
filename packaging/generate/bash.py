"""Completion for bash. It asks files and /sys alone: a Tab starts no program that takes long, and needs no rights."""

from __future__ import annotations

from generate.model import OTHER_NAME, PROGRAM
from generate.places import all_commands, arguments, options_with_a_value

_HEAD = r"""# bash completion for controller and pydbt, made by packaging/generated.py
# Offers what begins as the word under the cursor, once.
__controller_add() {
    [[ $1 == "$cur"* && " ${COMPREPLY[*]-} " != *" $1 "* ]] && COMPREPLY+=("$1")
}

# Only words of these characters are offered: none that the shell would expand.
__controller_offer() {
    local word
    while IFS= read -r word; do
        [[ $word =~ ^[A-Za-z0-9_./:+@=,-]+$ ]] && __controller_add "$word"
    done
}

# Names of configured volumes ($1: run) and replicas ($1: secondary). A file that may not be read counts as either.
__controller_names() {
    local folder=${PYDBT_VOLUMES:-/etc/pydbt/volumes} file role=${1-}
    for file in "$folder"/*.toml; do
        [[ -e $file ]] || continue
        [[ -z $role || ! -r $file ]] || command grep -qs "^[[:space:]]*\[$role\]" "$file" || continue
        file=${file##*/}
        printf '%s\n' "${file%.toml}"
    done
}

# What controllers of this machine serve, as far as this user may know.
__controller_running() {
    command sed -n 's/.*"place": *"\([^"\\]*\)".*/\1/p' /run/pydbt/[0-9]*-[0-9]* /run/pydbt/secondary-* \
        "${XDG_RUNTIME_DIR:-/run/user/$UID}"/pydbt/secondary-* 2>/dev/null
}

__controller_devices() {
    local entry size name
    for entry in /sys/class/block/*; do
        size=0
        { read -r size <"$entry/size"; } 2>/dev/null
        [[ $size != 0 ]] || continue
        name=/dev/${entry##*/}
        { read -r size <"$entry/dm/name"; } 2>/dev/null && name=/dev/mapper/$size
        printf '%s\n' "${name//!//}"
    done
}

__controller_paths() {
    local word
    while IFS= read -r word; do
        __controller_add "$word"
    done < <(compgen "$1" -- "$cur")
    compopt -o filenames 2>/dev/null
}

__controller_complete() {
    local source
    for source; do
        case $source in
            names) __controller_offer < <(__controller_names) ;;
            names-*) __controller_offer < <(__controller_names "${source#names-}") ;;
            running) __controller_offer < <(__controller_running) ;;
            devices)
                __controller_offer < <(__controller_devices)
                [[ $cur == */* ]] && __controller_paths -f
                ;;
            files) __controller_paths -f ;;
            folders) __controller_paths -d ;;
            *) __controller_offer <<<"$source" ;;
        esac
    done
}

_controller() {
    local line=${COMP_LINE:0:COMP_POINT} cur words word command= option= number=0 sources= options=
    read -ra words <<<"$line"
    cur=
    if [[ $line != *[[:space:]] ]]; then
        cur=${words[-1]}
        unset 'words[-1]'
    fi
    COMPREPLY=()
    for word in "${words[@]:1}"; do
        if [[ $option ]]; then
            option=
            continue
        fi
        case $word in
            --*=*) ;;
            VALUED) option=$word ;;
            -*) ;;
            *)
                case $command in
                    '') command=$word ;;
                    GROUPS) command+=" $word" ;;
                    *) number=$((number + 1)) ;;
                esac
                ;;
        esac
    done
    if [[ ! $option && $cur == --*=* ]]; then
        option=${cur%%=*}
        cur=${cur#*=}
    fi
    case $command in
OPTIONS
    esac
    if [[ $option ]]; then
        case $option in
OPTION_VALUES
        esac
    elif [[ $cur != -* ]]; then
        case $command:$((number + 1)) in
ARGUMENTS
        esac
        sources=${sources:-$options}
    else
        sources=$options
    fi
    __controller_complete $sources
    # Readline replaces what stands behind the last colon or equals sign.
    local behind=${cur%"${cur##*[:=]}"} place
    [[ $COMP_WORDBREAKS == *:* ]] || behind=
    for place in "${!COMPREPLY[@]}"; do
        COMPREPLY[place]=${COMPREPLY[place]#"$behind"}
    done
}

complete -F _controller NAMES
"""


def script() -> str:
    """The script, for both names of the command."""
    valued = options_with_a_value()
    values: dict[str, list[str]] = {}
    for name, (kinds, choices) in valued.items():
        if words := " ".join([*kinds, *choices]):
            values.setdefault(words, []).append(name)
    groups = [one.name for one in all_commands() if one.commands and one.path]
    options = [
        _case([f"'{command.name}'"], " ".join(name for one in command.options for name in one.names), "options", 8)
        for command in all_commands()
    ]
    every = " ".join(one.name for one in all_commands()[0].commands)
    parts = {
        "VALUED": " | ".join(valued),
        "GROUPS": " | ".join(groups),
        "OPTION_VALUES": "\n".join(_case(names, words) for words, names in values.items()),
        "OPTIONS": "\n".join(options),
        "ARGUMENTS": "\n".join(_arguments(every)),
        "NAMES": f"{PROGRAM} {OTHER_NAME}",
    }
    text = _HEAD
    for name, words in parts.items():
        text = (
            text.replace(f" {name}\n", f" {words}\n")
            .replace(f"{name})", f"{words})")
            .replace(f"\n{name}\n", f"\n{words}\n")
        )
    return text


def _arguments(every: str) -> list[str]:
    rows = [_case(["':1'"], every)]
    for group in all_commands():
        if group.commands and group.path:
            rows.append(_case([f"{group.name}:1"], " ".join(one.path[-1] for one in group.commands)))
    for command, number, found in arguments():
        last = number == len(command.arguments) and command.arguments[-1].metavar.endswith("...")
        pattern = f"'{command.name}:'*" if last else f"'{command.name}:{number}'"
        rows.append(_case([pattern], " ".join(found).replace("commands", every)))
    return rows


def _case(patterns: list[str], words: str, variable: str = "sources", indent: int = 12) -> str:
    return f"{' ' * indent}{' | '.join(patterns)}) {variable}='{words}' ;;"
