"""Completion for fish, with the text of the help beside each option. It asks files and /sys alone, as that for bash."""

from __future__ import annotations

from collections.abc import Iterator

from generate.model import OTHER_NAME, PROGRAM, Command, Parameter
from generate.places import Source, all_commands, arguments, options_with_a_value, sources

_HEAD = r"""# fish completion for controller and pydbt, made by packaging/generated.py

# The words on the line that are no options and no values of options: the command, and its arguments.
function __controller_words
    set -l tokens (commandline -opc)
    set -e tokens[1]
    set -l is_value 0
    for token in $tokens
        if test $is_value = 1
            set is_value 0
            continue
        end
        switch $token
            case '--*=*'
                continue
            case VALUED
                set is_value 1
            case '-*'
                continue
            case '*'
                echo $token
        end
    end
end

# Whether these are the first words. The last argument of this function is the number of words that follow, or "any".
function __controller_at
    set -l wanted $argv[1..-2]
    test "$wanted" = ""; and set -e wanted
    set -l words (__controller_words)
    set -l count (count $wanted)
    test (count $words) -ge $count; or return 1
    if test $count -gt 0
        test "$words[1..$count]" = "$wanted"; or return 1
    end
    test $argv[-1] = any; or test (count $words) -eq (math $count + $argv[-1])
end

# Names of configured volumes (run) and replicas (secondary). A file that may not be read counts as either.
function __controller_names
    set -l folder /etc/pydbt/volumes
    set -q PYDBT_VOLUMES; and test -n "$PYDBT_VOLUMES"; and set folder $PYDBT_VOLUMES
    for file in $folder/*.toml
        if test -n "$argv[1]" -a -r $file
            command grep -qs "^[[:space:]]*\[$argv[1]\]" $file; or continue
        end
        string match -r '^[a-z0-9][a-z0-9._-]*(?=\.toml$)' -- (string split -r -m 1 / $file)[-1]
    end
end

# What controllers of this machine serve, as far as this user may know.
function __controller_running
    set -l files
    for file in /run/pydbt/* /run/user/(id -u)/pydbt/*
        if test -f $file -a -r $file; and string match -qr '/(secondary-|[0-9]+-[0-9]+)[^/]*$' $file
            set -a files $file
        end
    end
    if test -n "$files"
        command sed -n 's/.*"place": *"\([^"\\\\]*\)".*/\1/p' $files 2>/dev/null
    end
end

function __controller_devices
    for entry in /sys/class/block/*
        set -l size 0
        test -r $entry/size; and read size <$entry/size
        test "$size" != 0; or continue
        if test -r $entry/dm/name
            read -l name <$entry/dm/name
            echo /dev/mapper/$name
        else
            string replace -a '!' / /dev/(string split -r -m 1 / $entry)[-1]
        end
    end
end

complete -c NAME -f
"""
_WORDS = {
    Source.NAMES: "(__controller_names)",
    Source.NAMES_RUN: "(__controller_names run)",
    Source.NAMES_SECONDARY: "(__controller_names secondary)",
    Source.RUNNING: "(__controller_running)",
    Source.DEVICES: "(__controller_devices)",
    Source.FOLDERS: "(__fish_complete_directories (commandline -ct))",
}


def script() -> str:
    """The script for the first name of the command."""
    valued = " ".join(options_with_a_value())
    text = _HEAD.replace("VALUED", valued).replace("NAME", PROGRAM)
    return text + "\n".join(_lines()) + "\n"


def other_script() -> str:
    """That for the other name: fish loads the first one by itself."""
    return f"complete -c {OTHER_NAME} -w {PROGRAM}\n"


def _lines() -> Iterator[str]:
    for command in all_commands():
        for one in command.commands:
            yield _line(_at(command, "0"), f"-a {one.path[-1]}", one.summary)
        for option in command.options:
            yield _line(_at(command, "any" if command.path else "0"), _option(command, option), option.help)
    for command, number, found in arguments():
        last = number == len(command.arguments) and command.arguments[-1].metavar.endswith("...")
        for source in found:
            yield _line(_at(command, "any" if last else str(number - 1)), _source(source), "")


def _at(command: Command, count: str) -> str:
    return f"-n '__controller_at {' '.join(command.path)} {count}'".replace("  ", " ")


def _line(condition: str, what: str, words: str) -> str:
    told = words.rstrip(".").replace("\\", r"\\").replace("'", r"\'")
    return f"complete -c {PROGRAM} {condition} {what}" + (f" -d '{told}'" if told else "")


def _source(source: Source) -> str:
    if source is Source.FILES:
        return "-F"
    every = " ".join(one.name for one in all_commands()[0].commands)
    return f"-a '{every if source is Source.COMMANDS else _WORDS[source]}'"


def _option(command: Command, one: Parameter) -> str:
    names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in one.names]
    if one.is_flag:
        return " ".join(names)
    kinds = sources(command, one)
    value = "-r -F" if kinds == (Source.FILES,) else "-x"
    words = [*one.choices, *(_WORDS[kind] for kind in kinds if kind is not Source.FILES)]
    return " ".join([*names, value, *([f"-a '{' '.join(words)}'"] if words else [])])
