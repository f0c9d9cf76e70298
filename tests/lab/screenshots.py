"""``scripts/screenshots``: pictures of the dashboard's page, of a pair that really runs, for README and documents."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from playwright.sync_api import Browser
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from pydbt.cli.explain import explain
from pydbt.cli.values import PATH
from pydbt.core.errors import PydbtError
from pydbt.core.units import GIB
from pydbt.device.checks import require_root
from tests.lab.browser import Tab, browser
from tests.lab.demo import scratch as scratches
from tests.lab.demo.play import Choice, Play
from tests.lab.page_bench.server import PageBench
from tests.lab.patience import Patience
from tests.lab.programs import PROGRAM, ROOT

FOLDER = ROOT / "docs/images"
VIEWS = ("summary", "map", "writers", "io", "method", "history")
# So that plots have something to show: the load runs this long before the pictures, and the link is down this long.
_LOAD_S, _OUTAGE_S = 40.0, 15.0
_SETTLE_S, _OBSERVED_S = 3.0, 15.0


class Camera:
    """Takes pictures of the page at an address, which a link with a token has opened."""

    def __init__(self, chromium: Browser, link: str, folder: Path) -> None:
        self._chromium, self._link, self._folder = chromium, link, folder
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, name: str, path: str = "", size: str = "laptop", scheme: str = "light") -> None:
        """``path``: what follows ``#/``; ``first/VIEW`` is a view of the first volume of role primary."""
        tab = Tab(self._chromium, self._link.split("?")[0].rstrip("/"), size, scheme, reduced_motion="reduce")
        tab.expected = ("Failed to load resource",)  # a view that this machine cannot answer tells why
        try:
            tab.page.goto(self._link)
            tab.page.wait_for_selector(".row")
            if path.startswith("first/"):
                link = tab.page.locator(".row:has(.whose:text('primary')) a").first.get_attribute("href") or ""
                path = f"{link.removeprefix('#/')}/{path.removeprefix('first/')}"
            tab.go(path)
            if path.endswith(("/io", "/writers")):  # programs are compiled, attached, and see something
                with contextlib.suppress(PlaywrightTimeout):
                    tab.page.wait_for_selector(".figures-table tbody tr")
                time.sleep(_OBSERVED_S)
            time.sleep(_SETTLE_S)
            tab.page.screenshot(path=self._folder / f"{name}.png")
        finally:
            tab.close()


def of_made_up_volumes(folder: Path) -> None:
    """The same pictures without root: of the bench of the page's tests."""
    with PageBench() as bench, browser() as chromium:
        camera = Camera(chromium, bench.address, folder)
        camera.take("overview")
        camera.take("overview-dark", scheme="dark")
        camera.take("phone", size="phone")
        for view in VIEWS:
            camera.take(view, f"first/{view}")


def of_a_pair(folder: Path, patience: Patience, say: Callable[[str], None]) -> None:
    """A pair under load; with its link cut; while it is in sync again. Everything is taken away at the end."""
    scratch = scratches.make(GIB)
    try:
        play = Play(scratch, Choice("ext4", GIB, _OUTAGE_S, None), patience, say)
        play.make_volume()
        play.start()
        with dashboard() as link, browser() as chromium, contextlib.ExitStack() as stack:
            camera = Camera(chromium, link, folder)
            play.loaded(stack)
            patience.sleep(_LOAD_S)
            camera.take("overview")
            camera.take("overview-dark", scheme="dark")
            camera.take("phone", size="phone")
            for view in VIEWS:
                camera.take(view, f"first/{view}")
            scratch.cable.cut()
            say("pulled the cable")
            patience.sleep(_OUTAGE_S)
            camera.take("cut-off")
            camera.take("cut-off-map", "first/map")
            scratch.cable.mend()
            say("plugged the cable in again")
            play.until_normal()
            camera.take("history-of-an-outage", "first/history", scheme="dark")
    finally:
        patience.ignore()
        for problem in scratches.remove(scratch):
            say(problem)


@contextlib.contextmanager
def dashboard() -> Iterator[str]:
    """``controller dashboard`` on a port of its own: the link that it prints."""
    words = [*PROGRAM, "dashboard", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout
        told = []
        for line in process.stdout:
            told.append(line.strip())
            if links := [word for word in line.split() if word.startswith("http")]:
                yield links[0]
                return
        raise RuntimeError(f"controller dashboard has printed no link: {' '.join(told)}")
    finally:
        process.terminate()
        process.wait(30)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--to", "folder", type=PATH, default=FOLDER, show_default="docs/images", help="Where the pictures go.")
@click.option("--made-up", is_flag=True, help="Of made-up volumes: needs no root.")
def main(folder: Path, made_up: bool) -> None:
    """Take the pictures of the dashboard anew, of a volume of this script's own, in about three minutes."""
    patience = Patience()
    patience.listen()
    try:
        if made_up:
            of_made_up_volumes(folder)
        else:
            require_root("scripts/screenshots")
            of_a_pair(folder, patience, lambda text: print(text, flush=True))
    except (PydbtError, LookupError, RuntimeError) as error:
        sentence, code = explain(error)
        print(f"scripts/screenshots: {sentence}", file=sys.stderr)
        sys.exit(code)


if __name__ == "__main__":
    main(prog_name="scripts/screenshots")
