"""The man pages: controller(8), one page per command, and the pages of the configuration in section 5."""

from __future__ import annotations

import re
from collections.abc import Iterable

from generate import markdown
from generate.examples import EXAMPLES, OF_THE_PROGRAM, Example
from generate.model import (
    OTHER_NAME,
    PROGRAM,
    Command,
    Key,
    Parameter,
    hook_keys,
    program,
    table_keys,
    value_definitions,
    volume_keys,
)
from generate.reference import CONFIGURATION
from generate.release import newest
from generate.roff import Page, escape
from pydbt.cli.config import DEFAULT_FILE
from pydbt.cli.explain import EXIT_CODES
from pydbt.cli.volume_files import STATE_ROOT, VOLUMES
from pydbt.controller.registry import PINS, RUN_DIR
from pydbt.core.configured.boot_order import NAMES_SUFFIX
from pydbt.kernel.code_cache import FOLDER
from pydbt.version import VERSION

VOLUME_PAGE, SETTINGS_PAGE = "pydbt-volume", "controller.toml"
FILES = (
    (f"{VOLUMES}/NAME.toml", f"One volume or replica of this machine; see `{VOLUME_PAGE}`(5)."),
    (
        f"{VOLUMES}/NAME{NAMES_SUFFIX}",
        "Names of the volume's device, for the order of the next boot; the program writes it.",
    ),
    (f"{DEFAULT_FILE}", f"Defaults for every command; see `{SETTINGS_PAGE}`(5)."),
    (f"{STATE_ROOT}/NAME", "The state directory of the volume or replica NAME, unless its file names another."),
    (f"{RUN_DIR}", "A record of every volume and replica that runs on this machine; it is empty after a boot."),
    (f"{FOLDER}", "Programs for the kernel that were compiled once."),
    (f"{PINS}", "The programs in the kernel, one folder per volume."),
)
ENVIRONMENT = (
    ("PYDBT_CONFIG", "Another file in the place of `/etc/pydbt/controller.toml`, as with `--config`."),
    ("PYDBT_VOLUMES", "Another folder in the place of `/etc/pydbt/volumes`."),
    ("PYDBT_DEBUG", "With the value 1: log everything, with a traceback for errors, as with `--debug`."),
    ("XDG_RUNTIME_DIR", "Where a secondary that does not run as root says that it runs."),
)
OF_THE_CONFIGURATION = "`controller configcheck` ends with one of:"
CONFIGURATION_CODES = (
    (0, "every file is right"),
    (2, "a file has an error: each is printed, with file, line, key, value, and what was expected"),
)


def pages() -> Iterable[Page]:
    """Every page, in the order of the commands."""
    whole = program()
    yield _program_page(whole)
    for command in whole.commands:
        yield _command_page(command)
    yield _volume_page()
    yield _settings_page()


def _page(name: str, section: int, summary: str, *others: str) -> Page:
    page = Page(name, section, newest().day.isoformat(), f"pydbt {VERSION}")
    page.heading("name")
    page.one_line(f"{escape(', '.join((name, *others)))} \\- {escape(summary[:1].lower() + summary[1:])}")
    page.heading("synopsis")
    return page


def _program_page(whole: Command) -> Page:
    page = _page(PROGRAM, 8, whole.summary.partition(";")[0], OTHER_NAME)
    page.synopsis(
        [f"`{name}` [`--config` *FILE*] [`--debug`] *COMMAND* [*ARGUMENT*]..." for name in (PROGRAM, OTHER_NAME)]
    )
    page.heading("description")
    page.paragraph(f"{whole.summary}. `{OTHER_NAME}` is the same program.")
    for paragraph in whole.paragraphs:
        page.paragraph(paragraph)
    page.heading("commands")
    for command in whole.commands:
        page.item(f"`{command.name}`", f"{command.summary}. See `{page_of(command)}`(8).")
    page.heading("options")
    _options(page, whole.options)
    page.heading("values")
    for words in value_definitions():
        page.paragraph(words)
    _exit_status(page)
    page.heading("environment")
    for name, words in ENVIRONMENT:
        page.item(f"`{name}`", words)
    _files(page, FILES)
    _examples(page, OF_THE_PROGRAM)
    _see_also(page, [*(f"{page_of(command)}(8)" for command in whole.commands), *_SECTION_5])
    return page


_SECTION_5 = [f"{VOLUME_PAGE}(5)", f"{SETTINGS_PAGE}(5)"]


def page_of(command: Command) -> str:
    """The name of the page of a command, or of its group."""
    return f"{PROGRAM}-{command.path[0]}"


def _command_page(command: Command) -> Page:
    page = _page(page_of(command), 8, command.summary)
    page.synopsis([_usage(one) for one in command.commands or (command,)])
    page.heading("description")
    for paragraph in (f"{command.summary}.", *command.paragraphs):
        page.paragraph(paragraph)
    if command.commands:
        page.heading("commands")
        for one in command.commands:
            page.subheading(_usage(one))
            for paragraph in (f"{one.summary}.", *one.paragraphs):
                page.paragraph(paragraph)
            _options(page, one.options)
    page.heading("options")
    if command.sections:
        for heading, options in command.sections:
            page.subheading(heading)
            _options(page, options)
    else:
        _options(page, command.options)
    page.paragraph(f"How sizes, rates, times and addresses are written is in `{PROGRAM}`(8).")
    _exit_status(page)
    _files(page, FILES[:3])
    _examples(page, EXAMPLES[command.name])
    _see_also(page, [f"{PROGRAM}(8)", *_neighbours(command), *_SECTION_5])
    return page


def _neighbours(command: Command) -> list[str]:
    """The other commands that its help names."""
    words = {
        word for text in (*command.paragraphs, *(one.help for one in command.options)) for word in _commands_in(text)
    }
    known = {one.name for one in program().commands}
    return [f"{PROGRAM}-{name}(8)" for name in sorted(words & known - {command.name})]


def _commands_in(text: str) -> set[str]:
    return {word for code in re.findall(r"`([^`]+)`", text) for word in code.split()}


def _usage(command: Command) -> str:
    needed = [f"`{one.names[-1]}` *{one.metavar}*" for one in command.options if one.required]
    arguments = [f"*{one.metavar}*" if one.required else f"[*{one.metavar.strip('[]')}*]" for one in command.arguments]
    return " ".join([f"`{PROGRAM} {command.name}`", "[*OPTIONS*]", *needed, *(_plain(one) for one in arguments)])


def _plain(argument: str) -> str:
    """``[FILE|NAME]...`` has its brackets already."""
    return argument.replace("[*FILE|NAME]...*]", "[*FILE*|*NAME*]...").replace("...*]", "*]...")


def _options(page: Page, options: Iterable[Parameter]) -> None:
    for one in options:
        value = f" *{one.metavar}*" if one.metavar else ""
        names = ", ".join(f"`{name}`" for name in sorted(one.names, key=len))
        more = [f" The default is `{one.default}`."] if one.default else []
        more += [" Required."] if one.required else []
        more += [" Only on the command line, in no file."] if one.once else []
        page.item(f"{names}{value}", one.help + "".join(more))


def _exit_status(page: Page) -> None:
    page.heading("exit status")
    for code, words in re.findall(r"^ *(\d+)  (.+)$", EXIT_CODES, flags=re.MULTILINE):
        page.item(f"`{code}`", words)


def _files(page: Page, files: Iterable[tuple[str, str]]) -> None:
    page.heading("files")
    for path, words in files:
        page.item(f"*{path}*", words)


def _examples(page: Page, examples: Iterable[Example]) -> None:
    page.heading("examples")
    for words, line in examples:
        if words:
            page.paragraph(words)
        page.code(_broken(line))


def _broken(line: str) -> list[str]:
    """A line to type, continued before options where it is long."""
    head, *options = re.split(r" (?=--)", line)
    lines = [head]
    for option in options:
        if len(lines[-1]) + len(option) > 66:
            lines[-1] += " \\"
            lines.append(f"    {option}")
        else:
            lines[-1] += f" {option}"
    return lines


def _see_also(page: Page, names: Iterable[str]) -> None:
    page.heading("see also")
    page.paragraph(", ".join(re.sub(r"^(.+)(\(\d\))$", r"`\1`\2", name) for name in names))


# --- the configuration ------------------------------------------------------------------------------------


def _volume_page() -> Page:
    text = CONFIGURATION.read_text()
    page = _page(VOLUME_PAGE, 5, "a volume or replica of this machine")
    page.synopsis([f"*{VOLUMES}/NAME.toml*"])
    page.heading("description")
    markdown.write(page, markdown.section(text, "Volumes and replicas"))
    for role, what in (("run", "volume"), ("secondary", "replica")):
        page.heading(f"keys of [{role}]")
        page.paragraph(f"The table `[{role}]` is that of a {what}.")
        _keys(page, volume_keys(role))
    page.heading("keys of [hooks]")
    page.paragraph("The table `[hooks]` may stand beside either: programs that are run when something changes.")
    _keys(page, hook_keys())
    _values(page, text)
    page.heading("run everything that is configured")
    markdown.write(page, markdown.section(text, "Run everything that is configured"))
    _configuration_end(page, text, [f"{PROGRAM}-run(8)", f"{PROGRAM}-secondary(8)", f"{SETTINGS_PAGE}(5)"])
    return page


def _settings_page() -> Page:
    text = CONFIGURATION.read_text()
    page = _page(SETTINGS_PAGE, 5, "defaults for the commands of controller")
    page.synopsis([f"*{DEFAULT_FILE}*"])
    page.heading("description")
    markdown.write(page, markdown.section(text, "Defaults for every command"))
    page.heading("tables")
    page.paragraph(f"`[run]` and `[secondary]` have the keys of `{VOLUME_PAGE}`(5), and those below.")
    for table, keys in table_keys():
        page.subheading(f"[{table}]")
        _keys(page, keys)
    _values(page, text)
    _configuration_end(page, text, [f"{VOLUME_PAGE}(5)"])
    return page


def _keys(page: Page, keys: Iterable[Key]) -> None:
    for key in keys:
        default = f" The default is `{key.default}`." if key.default else ""
        required = " Required." if key.required else ""
        page.item(f"`{key.name}` = *{key.kind.replace('`', '')}*", f"{key.meaning}{default}{required}")


def _values(page: Page, text: str) -> None:
    page.heading("values")
    for words in value_definitions():
        page.paragraph(words)
    markdown.write(page, markdown.section(text, "Values"))


def _configuration_end(page: Page, text: str, others: list[str]) -> None:
    page.heading("errors")
    markdown.write(page, markdown.section(text, "Errors"))
    page.heading("exit status")
    page.paragraph(OF_THE_CONFIGURATION)
    for code, words in CONFIGURATION_CODES:
        page.item(f"`{code}`", words)
    _files(page, FILES[:3])
    _see_also(page, [f"{PROGRAM}(8)", f"{PROGRAM}-configcheck(8)", *others])
