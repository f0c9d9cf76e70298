"""The files of the page: those of others are as they were published, and no file of ours goes round the policy."""

from __future__ import annotations

import hashlib
import re

from tests.lab.page_bench.server import STATIC

OURS = sorted(path for path in STATIC.rglob("*") if path.is_file() and "vendor" not in path.parts)


def test_the_files_of_others_are_as_they_were_published() -> None:
    rows = re.findall(
        r"^\| `([\w./]+)` \|.*\| ([0-9a-f]{64}) \|$", (STATIC / "vendor/README.md").read_text(), flags=re.MULTILINE
    )
    found = {str(path.relative_to(STATIC / "vendor")) for path in (STATIC / "vendor").rglob("*") if path.is_file()}
    assert {name for name, _ in rows} == found - {"README.md"}
    for name, expected in rows:
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == expected, name


def test_no_text_can_become_markup_or_code() -> None:
    """A text of a machine is put into the page as text; nothing of ours can turn one into elements or statements."""
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|createContextual|\beval\(|new Function"
    for path in OURS:
        if path.suffix in (".js", ".html"):
            assert not re.findall(ways, path.read_text()), path.name


def test_the_page_has_no_inline_script_or_style() -> None:
    text = (STATIC / "index.html").read_text()
    assert not re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)


def test_every_address_is_relative_so_that_a_proxy_may_have_a_path() -> None:
    for path in OURS:
        if path.suffix in (".js", ".html", ".css"):
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            assert not re.findall(r"https?://|[\"'(]/(?:static|api)", text), path.name


def test_whether_a_view_shows_the_past_is_decided_in_one_place() -> None:
    """Each view of a volume inherits that, and none has its own ``update`` or look of the past."""
    views = {path.stem: path.read_text() for path in (STATIC / "views").glob("*.js")}
    table = re.search(r"const VIEWS = \[(.*?)\n\];", views["volume"], flags=re.DOTALL)
    assert table
    names = re.findall(r", (\w+)\],", table[1])
    assert len(names) >= 6
    for name in names:
        (text,) = (text for text in views.values() if re.search(rf"class {name}\b", text))
        own = text[text.index(f"class {name} extends View ") :]
        assert not re.search(r"^  (update|problemIs)\(", own, flags=re.MULTILINE), name
    assert [path.name for path in OURS if path.suffix == ".js" and "data-stale" in path.read_text()] == ["view.js"]
