"""The machines' image: built from packages alone, and kept in a cache under the fingerprint of what it is made of.

The cache is ``$PYDBT_VM_CACHE``, or ``/var/cache/pydbt-vm``. Several people may build and use it at once. What
changes with every commit, the project itself, is not in it: it is copied into the machines when they have booted.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.vm.kernels import packages_of

PROJECT = Path(__file__).resolve().parents[2]
RECIPE = Path(__file__).parent / "recipe"
OURS = hashlib.sha256(str(PROJECT).encode()).hexdigest()[:10]
"""Each copy of the project has machines of its own."""
BUILD_TIMEOUT_S = 3600
SUITES = ("bookworm", "trixie")  # of Debian, and what the recipe knows
SUITE = "PYDBT_VM_SUITE"
KEPT_S = 7 * 86400  # images that nobody has used for this time are removed


def cache() -> Path:
    """Where images and the machines' disks are."""
    folder = Path(os.environ.get("PYDBT_VM_CACHE") or "/var/cache/pydbt-vm").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True, slots=True)
class Image:
    """One built image: a root file system, the kernel and initial RAM disk to boot it, and the key that opens it."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root.img"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"

    @property
    def key(self) -> Path:
        return self.folder / "id"

    @property
    def release(self) -> str:
        """Of the kernel, as ``uname -r`` has it."""
        return (self.folder / "kernel").read_text().strip()


def chosen_suite() -> str:
    """Whose packages and kernel the machines have. RuntimeError for one that is not known."""
    suite = os.environ.get(SUITE) or SUITES[0]
    if suite not in SUITES:
        raise RuntimeError(f"{suite} is no suite that machines can be made of: expected {' or '.join(SUITES)}")
    return suite


def image(more: tuple[str, ...] = (), line: str = "") -> Image:
    """The image for this state of the recipe, with ``more`` packages; built first if need be, which takes a minute or two.

    ``line``: of kernels (kernels.py), in the place of the suite's own.
    """
    suite = chosen_suite()
    whole = _fingerprint(
        *RECIPE.iterdir(),
        PROJECT / "scripts/setup",
        PROJECT / "requirements.txt",
        PROJECT / "requirements-browser.txt",
        PROJECT / "pyproject.toml",
        more=(*more, line) if line else more,
    )
    packages = _fingerprint(RECIPE / "packages", PROJECT / "scripts/setup", more=more)
    folder = cache() / f"image-{suite}-{whole}"
    with (cache() / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _remove_stale(cache())
            _build(suite, folder, cache() / f"packages-{suite}-{packages}.tar", more, line)
        os.utime(folder)
    return Image(folder)


def _fingerprint(*paths: Path, more: tuple[str, ...]) -> str:
    digest = hashlib.sha256(" ".join(more).encode())
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _build(suite: str, folder: Path, packages: Path, more: tuple[str, ...], line: str) -> None:
    _check_tools()
    release, kernel = packages_of(line, cache() / "kernels") if line else ("", [])
    named = {"KERNEL_RELEASE": release, "KERNEL_PACKAGES": " ".join(map(str, kernel))}
    began = time.monotonic()
    print(f"building the machines' image of {suite} in {folder}", flush=True)
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    log = part / "build.log"
    with log.open("wb") as output:
        done = subprocess.run(
            [RECIPE / "build", suite, PROJECT, part, packages, *more],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=BUILD_TIMEOUT_S, env=os.environ | named,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the image could not be built, see {log}:\n{log.read_text(errors='replace')[-3000:]}")
    part.rename(folder)
    print(f"built in {time.monotonic() - began:.0f} s", flush=True)


def _check_tools() -> None:
    missing = [
        tool for tool in ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "busybox", "cpio") if not shutil.which(tool)
    ]
    if missing:
        raise RuntimeError(f"{', '.join(missing)} missing here: run scripts/setup --tests")
    if not (PROJECT / ".venv/bin/python").exists():
        raise RuntimeError("there is no .venv here: run scripts/setup --tests")


def _remove_stale(folder: Path) -> None:
    for path in (*folder.glob("image-*"), *folder.glob("packages-*.tar")):
        if time.time() - path.stat().st_mtime > KEPT_S:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
