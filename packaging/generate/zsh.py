"""Completion for zsh, with the text of the help beside each option. It asks files and /sys alone, as that for bash."""

from __future__ import annotations

from generate.model import OTHER_NAME, PROGRAM, Command, Parameter, program
from generate.places import Source, sources

_HEAD = r"""#compdef NAMES
# zsh completion for controller and pydbt, made by packaging/generated.py

# Names of configured volumes ($1: run) and replicas ($1: secondary). A file that may not be read counts as either.
_controller_names() {
    local role=$1 file expl
    local -a names
    for file in ${PYDBT_VOLUMES:-/etc/pydbt/volumes}/*.toml(N); do
        [[ -z $role || ! -r $file ]] || command grep -qs "^[[:space:]]*\[$role\]" $file || continue
        [[ ${file:t:r} =~ '^[a-z0-9][a-z0-9._-]*$' ]] && names+=(${file:t:r})
    done
    _wanted names expl 'configured name' compadd -a names
}

# What controllers of this machine serve, as far as this user may know.
_controller_running() {
    local expl
    local -a places files
    files=(/run/pydbt/[0-9]*-[0-9]*(N) /run/pydbt/secondary-*(N) ${XDG_RUNTIME_DIR:-/run/user/$UID}/pydbt/secondary-*(N))
    (( $#files )) && places=(${(f)"$(command sed -n 's/.*"place": *"\([^"\\]*\)".*/\1/p' $files 2>/dev/null)"})
    _wanted places expl 'volume or replica' compadd -a places
}

_controller_devices() {
    local entry size name expl
    local -a devices
    for entry in /sys/class/block/*(N); do
        size=0
        { read -r size <$entry/size } 2>/dev/null
        [[ $size != 0 ]] || continue
        name=/dev/${entry:t}
        { read -r size <$entry/dm/name } 2>/dev/null && name=/dev/mapper/$size
        devices+=(${name//!/\/})
    done
    _wanted devices expl 'block device' compadd -a devices
    [[ $PREFIX == */* ]] && _files
}
"""
# A blank in front: the function gets no arguments but its own (zshcompsys(1), _arguments).
_ACTIONS = {
    Source.COMMANDS: ("commands", "command", " _controller_commands"),
    Source.NAMES: ("names", "configured name", " _controller_names"),
    Source.NAMES_RUN: ("names", "configured volume", " _controller_names run"),
    Source.NAMES_SECONDARY: ("names", "configured replica", " _controller_names secondary"),
    Source.RUNNING: ("running", "volume or replica", " _controller_running"),
    Source.DEVICES: ("devices", "block device", " _controller_devices"),
    Source.FILES: ("files", "file", "_files"),
    Source.FOLDERS: ("folders", "folder", "_files -/"),
}


def script() -> str:
    """The script, for both names of the command."""
    whole = program()
    lines = [_HEAD.replace("NAMES", f"{PROGRAM} {OTHER_NAME}", 1), *_described("_controller_commands", whole)]
    groups = [one for one in whole.commands if one.commands]
    for group in groups:
        lines += _described(f"_controller_{group.name}_commands", group)
    lines += ["_controller() {", *_dispatch(whole, "_controller_commands", "    "), "}", "", '_controller "$@"']
    return "\n".join(lines) + "\n"


def _described(function: str, group: Command) -> list[str]:
    """A function that offers the commands of a group with their summaries."""
    rows = [_quoted(f"{one.path[-1]}:{one.summary}") for one in group.commands]
    return [f"{function}() {{", "    local -a commands=(", *(f"        {row}" for row in rows), "    )",
            "    _describe -t commands command commands", "}", ""]  # fmt: skip


def _dispatch(group: Command, offer: str, indent: str) -> list[str]:
    specs = [*_specs(group), f"'1:command:{offer}'", "'*::argument:->argument'"]
    lines = (
        [f"{indent}local context state state_descr line ret=1", f"{indent}typeset -A opt_args"]
        if not group.path
        else []
    )
    lines += [
        f"{indent}_arguments -C -S \\",
        *_continued(specs, indent),
        f"{indent}case $state in",
        f"{indent}    argument)",
    ]
    inner = indent + "        "
    lines.append(f"{inner}case $words[1] in")
    for one in group.commands:
        lines.append(f"{inner}    {one.path[-1]})")
        if one.commands:
            lines += _dispatch(one, f"_controller_{one.name}_commands", inner + "        ")
        else:
            lines += [
                f"{inner}        _arguments -S \\",
                *_continued([*_specs(one), *_positions(one)], inner + "        "),
            ]
        lines.append(f"{inner}        ;;")
    return [*lines, f"{inner}esac", f"{inner};;", f"{indent}esac"]


def _continued(specs: list[str], indent: str) -> list[str]:
    return [f"{indent}    {spec} \\" for spec in specs[:-1]] + [f"{indent}    {specs[-1]}"]


def _specs(command: Command) -> list[str]:
    return [spec for one in command.options for spec in _option(command, one)]


def _option(command: Command, one: Parameter) -> list[str]:
    words = one.help.replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]").rstrip(".")
    if one.is_flag:
        alone = "(- *)" if one.key in ("help", "version") else ""
        return [_quoted(f"{alone}{name}[{words}]") for name in one.names]
    several = "*" if one.several else ""
    value = f":{one.metavar.replace(':', chr(92) + ':')}:{_action(sources(command, one), one.choices)}"
    return [_quoted(f"{several}{name}=[{words}]{value}") for name in one.names]


def _positions(command: Command) -> list[str]:
    found = []
    for number, one in enumerate(command.arguments, start=1):
        place = "*" if one.metavar.endswith("...") else str(number)
        metavar = one.metavar.strip("[].").replace(":", r"\:").replace("|", " or ")
        found.append(_quoted(f"{place}:{metavar}:{_action(sources(command, one), one.choices)}"))
    return found


def _action(kinds: tuple[Source, ...], choices: tuple[str, ...]) -> str:
    if choices:
        return f"({' '.join(choices)})"
    if len(kinds) == 1:
        return _ACTIONS[kinds[0]][2]
    if kinds:
        return " _alternative " + " ".join('"' + ":".join(_ACTIONS[kind]) + '"' for kind in kinds)
    return " "


def _quoted(text: str) -> str:
    return "'" + text.replace("'", r"'\''") + "'"
