"""Plain English: words that a reader whose first language is another misreads are nowhere, not even in the name of a test."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
FOLDERS = ("pydbt", "bpf", "docs", "scripts", "tests", "packaging")
SUFFIXES = {"", ".md", ".py", ".c", ".h", ".sh", ".toml", ".html", ".service", ".yml", ".yaml"}
# Between two words: a name's underscore, the mark of a comment, the end of a line or of one piece of a string.
BETWEEN = r"[\s_#*\"]+"
COUNTED = r"(bits?|blocks|bytes|once|one|records?|samples?|times?|twice|words|[kKMGT]i?B)"
# The words of CONTRIBUTING's section "Plain English" -> what stands in their place.
AVOIDED = {
    r"so (many|much)": "this many, this much; or the number itself",
    r"(say|says|said|saying) so": "name the thing that is said, and where: 'one warning names the reason'",
    r"(mean|means|meant) it": "name the act: 'requires --insecure'",
    r"believ(e|es|ed|ing)": "accept, take, trust, use",
    r"(own|its last|their last) words?": "report, claim, statement, answer, output",
    rf"{COUNTED} (?-i:a) (block|record|second|seed|word)(?! time)": ("per: 'one bit per block', 'once per second'"),
    r"so long(?! as)": "this long, for longer than; or name the time",
    r"is your word": "you confirm",
    r"counts more": "the active verb: 'the command line overrides the file'",
}
# In documents as well: a name of code or a comment may need them.
AVOIDED_IN_DOCUMENTS = {
    r"(?-i:What)(?! it cannot know)": "a noun as the subject of the sentence",
    r"all the same": "still, nevertheless, in spite of that",
    r"mend(s|ed|ing)?": "fix, correct, repair; of a link: connect again",
    r"works? whole": "works fully, works in part",
    r"(is|are|was|were) no more": "is not ... any more",
}
# In what people read of the program as well: in messages, and in the help of commands.
AVOIDED_IN_MESSAGES = {
    r"(?-i:What)": "a noun as the subject of the sentence",
    **{words: AVOIDED_IN_DOCUMENTS[words] for words in (r"all the same", r"mend(s|ed|ing)?")},
    r"talked to": "'no connection to', 'refused'",
}
# On the command line a sentence may begin small, and another one behind a colon or semicolon.
AVOIDED_IN_COMMANDS = {r"(?:^|(?<=[.:;]\s))what": "a noun as the subject of the sentence"}
# A heading may ask; so may the name of a link.
ASKING = re.compile(r"^#+ .*$|\[What [^]]*\]", re.MULTILINE)
# The two tables of words to avoid.
EXEMPT = {"CONTRIBUTING.md", "tests/test_plain_english.py"}


def pattern_of(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z]){words.replace(' ', BETWEEN)}(?![A-Za-z])", re.IGNORECASE)


PATTERNS = {pattern_of(words): instead for words, instead in AVOIDED.items()}
IN_MESSAGES = {pattern_of(words): instead for words, instead in AVOIDED_IN_MESSAGES.items()}
IN_COMMANDS = IN_MESSAGES | {pattern_of(words): instead for words, instead in AVOIDED_IN_COMMANDS.items()}
IN_DOCUMENTS = PATTERNS | {pattern_of(words): instead for words, instead in AVOIDED_IN_DOCUMENTS.items()}


def avoided_in(text: str, patterns: dict[re.Pattern[str], str] = PATTERNS) -> list[tuple[int, str, str]]:
    """The line, the words and what is better, for each place with words to avoid."""
    return [
        (text.count("\n", 0, match.start()) + 1, " ".join(re.split(BETWEEN, match[0])), instead)
        for pattern, instead in patterns.items()
        for match in pattern.finditer(text)
    ]


def texts() -> list[Path]:
    found = [*PROJECT.glob("*.md"), *(path for folder in FOLDERS for path in (PROJECT / folder).rglob("*"))]
    return [path for path in found if path.suffix in SUFFIXES and str(path.relative_to(PROJECT)) not in EXEMPT]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It rests, and says so.", "says so"),
        ("def test_one_that_cannot_says_so_once():", "says so"),
        ('f"it is not "\n    "believed at all"', "believed"),
        ("# Regions of so\n    # many bytes.", "so many"),
        ("By its own word.", "own word"),
        ("By its last word.", "its last word"),
        ("One bit a block", "bit a block"),
        ("checks of once a\n    second", "once a second"),
        ("4 MiB a second", "MiB a second"),
        ("waits so long", "so long"),
    ],
)
def test_each_kind_of_text_is_looked_through(text: str, words: str) -> None:
    assert [found for _, found, _ in avoided_in(text)] == [words]


@pytest.mark.parametrize(
    "text",
    [
        "It said something.",
        "lockdown_words",
        "It says some of it.",
        "unbelievable",
        "so long as",
        "looks at it once a second time",
        "a bit a blocked",
    ],
)
def test_other_words_are_left_alone(text: str) -> None:
    assert not avoided_in(text)


def avoided_in_a_document(text: str) -> list[tuple[int, str, str]]:
    return avoided_in(ASKING.sub("", text), IN_DOCUMENTS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It waits. What is lost is copied.", "What"),
        ("- **What is lost** is copied.", "What"),
        ("It runs all\nthe same.", "all the same"),
        ("The link is mended.", "mended"),
        ("It does not work whole.", "work whole"),
        ("It is no more.", "is no more"),
        ("One bit a block", "bit a block"),
    ],
)
def test_a_document_is_read_more_strictly(text: str, words: str) -> None:
    assert [found for _, found, _ in avoided_in_a_document(text)] == [words]


@pytest.mark.parametrize(
    "text",
    [
        "## What it costs\n",
        "[What it costs](#what-it-costs)",
        "*What it cannot know*: much",
        "and what is lost",
        "recommend",
    ],
)
def test_a_document_may_ask(text: str) -> None:
    assert not avoided_in_a_document(text)


def _is_a_command(node: ast.AST) -> bool:
    made = node.decorator_list if isinstance(node, ast.FunctionDef) else []
    return any(ast.unparse(one).partition("(")[0].endswith((".command", ".group")) for one in made)


def messages_in(source: str) -> Iterator[tuple[int, str]]:
    """Strings in a program that people may read, each with its line: all but single words, which may be keys, and those that
    stand alone, as comments do. The help of a command is one, although it stands alone. The gaps of an f-string are a ``~``."""
    tree = ast.parse(source)
    comments: set[ast.AST] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for place, one in enumerate(body if isinstance(body, list) else ()):
            if isinstance(one, ast.Expr) and not (place == 0 and _is_a_command(node)):
                comments.add(one.value)
    pieces = {piece for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for piece in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(one.value if isinstance(one, ast.Constant) else "~" for one in node.values)
        elif isinstance(node, ast.Constant) and " " in str(node.value) and not {node} & (comments | pieces):
            yield node.lineno, str(node.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('log("mend the cause")', ["mend"]),
        ('raise Error(f"{path} is used all " "the same")', ["all the same"]),
        ('raise Error(f"{path} is not to be talked to")', ["talked to"]),
        ('@click.command()\ndef f():\n    """Check it.\n\n    What counts is the age.\n    """', ["What"]),
        ('@click.command()\ndef f():\n    """Choose it: what is only there is given up."""', ["what"]),
        ('say(f"{number} blocks differ; what differs is copied")', ["what"]),
        ('"""What it is for."""\nLIMIT = 3\n"""What is mended."""\ndef f():\n    """What it returns."""', []),
        ('say("it prints what is lost, and what to do")', []),
    ],
)
def test_messages_and_help_are_read_more_strictly_than_comments(source: str, words: list[str]) -> None:
    found = [found for _, text in messages_in(source) for _, found, _ in avoided_in(text, IN_COMMANDS)]
    assert found == words


def test_words_to_avoid_are_in_no_message_and_no_help() -> None:
    found = [
        f"{path.relative_to(PROJECT)}:{line} {words!r}: {instead}"
        for path in (*(PROJECT / "pydbt").rglob("*.py"), *(PROJECT / "packaging").rglob("*.py"))
        for line, told in messages_in(path.read_text())
        for text in [re.sub(r"^ *#.*$", "", told, flags=re.MULTILINE)]  # a comment in a file that is made
        for _, words, instead in avoided_in(
            text, IN_COMMANDS if path.is_relative_to(PROJECT / "pydbt/cli") else IN_MESSAGES
        )
    ]
    assert not found, "\n".join(["write plain English (CONTRIBUTING.md):", *found])


def test_words_to_avoid_are_nowhere() -> None:
    found = [
        f"{path.relative_to(PROJECT)}:{line} {words!r}: {instead}"
        for path in texts()
        if path.is_file()
        for look in [avoided_in_a_document if path.suffix == ".md" else avoided_in]
        for line, words, instead in look(path.read_text(errors="replace"))
    ]
    assert not found, "\n".join(["write plain English (CONTRIBUTING.md):", *found])
