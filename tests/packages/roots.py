"""Root file systems in which packages are installed: each has processes, mounts and folders of its own, and leaves nothing.

A root is an overlay whose changes are in memory, over this machine's own files or over those of a suite that mmdebstrap made.
Its first process is its own, so that scripts take it for a machine and not for a chroot.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.patience import until
from tests.vm.image import KEPT_S, cache

SUITE_TIMEOUT_S = 1800
COMMAND_TIMEOUT_S = 600
# What a machine has there at its start, whatever is below.
EMPTY = ("run", "sys", "etc/pydbt", "var/lib/pydbt", "var/cache/pydbt")
_BEGIN = """
set -e
mount -t tmpfs tmpfs {place}
mkdir {place}/upper {place}/work {place}/root
mount -t overlay overlay -o lowerdir={below},upperdir={place}/upper,workdir={place}/work {place}/root
mount -t proc proc {place}/root/proc
mount --bind /dev {place}/root/dev
exec chroot {place}/root sleep infinity
"""
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "HOME": "/root",
}


@dataclass(frozen=True, slots=True)
class Done:
    """The end of one command in a root."""

    code: int
    output: str  # of both streams


@dataclass(frozen=True, slots=True)
class Root:
    """A root file system that lives as long as its first process."""

    process: int

    def path(self, name: str) -> Path:
        """Where a file of it is found from outside."""
        return Path(f"/proc/{self.process}/root") / name.lstrip("/")

    def run(self, *words: str, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S) -> Done:
        """Run a command in it, to its end."""
        root = f"/proc/{self.process}/root"
        done = subprocess.run(
            ["nsenter", "-t", str(self.process), "--mount", "--pid", f"--root={root}", f"--wd={root}", *words],
            env=_ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=timeout_s, check=False,
        )  # fmt: skip
        end = Done(done.returncode, done.stdout.decode(errors="replace"))
        assert not check or end.code == 0, f"{' '.join(words)} ended with {end.code}:\n{end.output}"
        return end

    def shell(self, text: str, check: bool = True) -> Done:
        return self.run("sh", "-c", text, check=check)

    def write(self, name: str, text: str = "", mode: int = 0o644) -> Path:
        """Make a file in it, with the folders above."""
        place = self.path(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)
        return place

    def files(self) -> set[str]:
        """Every path in it, but for those of the kernel's file systems and what is shown from outside."""
        text = self.run("find", "/", "-xdev", "-not", "-path", "/dev/*", "-not", "-path", "/proc/*").output
        return set(text.splitlines())


@contextlib.contextmanager
def root_over(below: Path) -> Iterator[Root]:
    """A root over the files of ``below``, which stay as they are."""
    script = _BEGIN.format(place="/mnt", below=below)
    first = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        until(lambda: _child_that_sleeps(first) is not None, "the root is there")
        root = Root(_child_that_sleeps(first) or 0)
        for name in EMPTY:
            place = root.path(name)
            shutil.rmtree(place, ignore_errors=True)
            if "pydbt" not in name:
                place.mkdir(parents=True)
        yield root
    finally:
        first.kill()
        first.communicate()


def _child_that_sleeps(first: subprocess.Popen[bytes]) -> int | None:
    if first.poll() is not None:
        raise RuntimeError(f"no root could be made: {first.communicate()[1].decode(errors='replace')}")
    for number in Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{number}/comm").read_text().strip() == "sleep":
                return int(number)
    return None


def suite_with(suite: str, needs: str) -> Path:
    """The files of a Debian suite in which ``needs``, dependencies as in a control file, are met; made first if need be."""
    name = hashlib.sha256(needs.encode()).hexdigest()[:16]
    folder = cache() / f"suite-{suite}-{name}"
    with (cache() / "suite.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _remove_stale()
            _make_suite(suite, needs, folder)
        os.utime(folder)
    return folder


def _make_suite(suite: str, needs: str, folder: Path) -> None:
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    meet = 'DEBIAN_FRONTEND=noninteractive chroot "$1" apt-get -q -y --no-install-recommends satisfy "$NEEDS"'
    words = ["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", "--dpkgopt=force-unsafe-io"]
    done = subprocess.run(
        [*words, f"--customize-hook={meet}", suite, part],
        env={**os.environ, "NEEDS": needs}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=SUITE_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        shutil.rmtree(part, ignore_errors=True)
        raise RuntimeError(f"{suite} could not be made:\n{(done.stdout + done.stderr)[-3000:]}")
    part.rename(folder)


def _remove_stale() -> None:
    for path in cache().glob("suite-*-*"):
        if time.time() - path.stat().st_mtime > KEPT_S:
            shutil.rmtree(path, ignore_errors=True)
