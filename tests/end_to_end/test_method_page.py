"""The dashboard's page of the method, over a real pair: the log has the transactions of the file system that runs."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.test_transactions import MIB, fsyncs, shown_by_debugfs, start
from tests.lab.cluster import cluster
from tests.lab.disks import Device, loop_device, make_filesystem, mounted
from tests.lab.patience import until
from tests.lab.programs import ROOT, command

pytestmark = pytest.mark.browser

DRAWN = ".figure-drawing[aria-label^='Transaction log'] text"


@contextlib.contextmanager
def page_of(device: Device, tmp_path: Path) -> Iterator[Any]:
    """The view of the method of this device's primary, in a browser."""
    from tests.lab.browser import Tab, browser  # only here: others of this folder need no browser

    words = [
        sys.executable,
        "-m",
        "pydbt.cli.main",
        "dashboard",
        "--listen",
        "127.0.0.1:0",
        "--peers",
        str(tmp_path / "peers"),
    ]
    with (
        (tmp_path / "dashboard.log").open("w") as log,
        subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
        ) as served,
        browser() as chromium,
    ):
        try:
            assert served.stdout is not None
            link = served.stdout.readline().strip()
            tab = Tab(chromium, link.split("?")[0].rstrip("/"))
            tab.page.goto(link)
            row = tab.page.locator(f".row:has-text('{device.path.name}'):has(.whose:text('primary')) a")
            tab.go((row.first.get_attribute("href") or "").removeprefix("#/") + "/method")
            yield tab.page
            tab.close()
        finally:
            served.kill()


def test_the_log_is_drawn_with_the_commits_that_wait_for_the_secondary(tmp_path: Path) -> None:
    with loop_device(tmp_path, 64 * MIB) as device:
        make_filesystem("ext4", device.path, "-b", "4096")
        patient = ("--ack-timeout", "120")
        with (
            cluster(tmp_path / "c", device, primary_options=patient) as both,
            mounted(device, tmp_path / "mnt") as folder,
            page_of(device, tmp_path) as page,
        ):
            start(both)
            fsyncs(folder, 0, 5)
            assert command("wait", device.path, "--transaction", "current").code == 0
            both.secondary.freeze()  # so that what is submitted now stays in the log
            try:
                fsyncs(folder, 100, 3)
                told = json.loads(command("transactions", device.path, "--json").output)["transactions"]
                waiting = [one["transaction"] for one in told if one["state"] != "done"]
                assert waiting and waiting[-1] == shown_by_debugfs(device)[-1]
                for name in waiting:
                    page.wait_for_selector(f"{DRAWN}:text-matches('^ext4 {name}: block')")
                drawn = [re.match(r"ext4 (\d+): ", one) for one in page.locator(DRAWN).all_inner_texts()]
                named = list(dict.fromkeys(found[1] for found in drawn if found))
                assert named[-len(waiting) :] == waiting, "in their order"
            finally:
                both.secondary.thaw()
            both.wait()
            until(lambda: told_as_done(device.path, waiting[-1]), "they are done")


def told_as_done(path: Path, name: str) -> bool:
    told = json.loads(command("transactions", path, "--json").output)["transactions"]
    return any(one["transaction"] == name and one["state"] == "done" for one in told)
