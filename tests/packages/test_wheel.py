"""An installed program runs: its wheel has everything, and names everything that it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.lab.disks import loop_device
from tests.lab.identities import socket_address
from tests.lab.images import assert_identical
from tests.lab.patience import until
from tests.lab.programs import ROOT, status_of
from tests.packages.conftest import GENERATED, contents

pytestmark = pytest.mark.packages
SIZE = 8 << 20
# Debian 12's own packages of what the program imports, and the libraries that these need.
DEBIAN = [
    "python3-numpy",
    "python3-bitarray",
    "python3-xxhash",
    "python3-zstandard",
    "python3-click",
    "python3-crc32c",
    "python3-colorama",
    "python3-rich",
    "python3-pyroute2",
    "python3-markdown-it",
    "python3-mdurl",
    "python3-pygments",
    "libblas3",
    "liblapack3",
    "libgfortran5",
    "libxxhash0",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of a copy, so that nothing is left in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    tree.mkdir()
    for name in ("pydbt", "bpf"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tree / name)
    words = ["-q", "--no-build-isolation", "--no-deps", "--no-index", "-w", folder, tree]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *map(str, words)], check=True, timeout=120)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("installed")
    words = ["-q", "--no-deps", "--no-index", "--target", place, wheel]
    subprocess.run([sys.executable, "-m", "pip", "install", *map(str, words)], check=True, timeout=120)
    return place


@pytest.fixture(scope="module")
def debians_own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's packages, unpacked and not installed."""
    folder = tmp_path_factory.mktemp("debian")
    folder.chmod(0o755)
    subprocess.run(["apt-get", "download", "-q", *DEBIAN], cwd=folder, check=True, timeout=240)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder / "root"], check=True, timeout=60)
    return folder / "root"


@pytest.mark.smoke
def test_the_wheel_has_the_programs_and_names_what_it_imports(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        (metadata,) = [name for name in names if name.endswith("/METADATA")]
        needs = content.read(metadata).decode()
    assert {f"pydbt/bpf/{path.name}" for path in (ROOT / "bpf").iterdir()} <= names
    static = ROOT / "pydbt/dashboard/static"
    assert {
        f"pydbt/dashboard/static/{path.relative_to(static)}" for path in static.rglob("*") if path.is_file()
    } <= names
    assert not [name for name in names if name.startswith("tests/")]
    libraries = "numpy bitarray crc32c xxhash zstandard click rich pyroute2 cryptography starlette uvicorn urwid"
    for library in [*libraries.split(), "prometheus-client"]:
        assert f"Requires-Dist: {library}>=" in needs, library


@pytest.mark.smoke
def test_the_installed_program_replicates(installed: Path, tmp_path: Path) -> None:
    replicates([sys.executable], {"PYTHONPATH": str(installed)}, tmp_path)


def of_debian(debians_own: Path, *paths: Path) -> dict[str, str]:
    """The environment for the distribution's Python with Debian's packages, and these folders before them."""
    libraries = debians_own / "usr/lib/x86_64-linux-gnu"
    places = [*map(str, paths), f"{debians_own}/usr/lib/python3/dist-packages"]
    environment = {
        "PYTHONPATH": ":".join(places),
        "LD_LIBRARY_PATH": f"{libraries}:{libraries}/blas:{libraries}/lapack",
    }
    where = subprocess.run(
        ["/usr/bin/python3", "-c", "import numpy, click; print(numpy.__file__, click.__file__)"],
        env={**os.environ, **environment}, cwd="/", capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert all(word.startswith(str(debians_own)) for word in where.split()), where
    return environment


def test_the_installed_program_replicates_with_debians_own_python_packages(
    installed: Path, debians_own: Path, tmp_path: Path
) -> None:
    replicates(["/usr/bin/python3"], of_debian(debians_own, installed), tmp_path)


def test_pages_and_completions_are_the_same_by_debian_s_own_python_packages(
    debians_own: Path, generated: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, **of_debian(debians_own)}
    subprocess.run(["/usr/bin/python3", GENERATED, tmp_path], env=environment, cwd="/", check=True, timeout=240)
    assert contents(tmp_path) == contents(generated)


def test_controllers_whose_files_an_upgrade_takes_away_end_as_usual(installed: Path, tmp_path: Path) -> None:
    """Between the moment of other files on the disk and the end of a process there is always some time."""
    before = tmp_path / "before"
    shutil.copytree(installed, before)
    program = [sys.executable, "-m", "pydbt.cli.main"]
    address, target = socket_address(), tmp_path / "replica.img"
    running: list[subprocess.Popen[bytes]] = []

    def start(*words: object) -> None:
        with (tmp_path / "log").open("ab") as log:
            running.append(
                subprocess.Popen(
                    [*program, *map(str, words)],
                    cwd="/",
                    env={**os.environ, "PYTHONPATH": str(before)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )

    with loop_device(tmp_path, SIZE) as device:
        try:
            start("secondary", target, "--create", SIZE, "--listen", address, "--state", tmp_path / "s")
            until(lambda: status_of(tmp_path / "s") is not None, "the secondary answers")
            start("run", device.path, "--secondary", address, "--state", tmp_path / "p")
            until(lambda: (status_of(tmp_path / "p") or {}).get("mode") == "normal", "it follows")
            shutil.rmtree(before)
            with device.path.open("r+b") as disk:
                disk.write(os.urandom(1 << 20))
            for process in reversed(running):
                process.terminate()
                assert process.wait(60) == 0, (tmp_path / "log").read_text()
            assert "Error" not in (tmp_path / "log").read_text()
            before.symlink_to(installed)
            start("secondary", target, "--listen", address, "--state", tmp_path / "s")
            start("run", device.path, "--secondary", address, "--state", tmp_path / "p")
            until(lambda: (status_of(tmp_path / "p") or {}).get("mode") == "normal", "it follows again")
            assert (status_of(tmp_path / "p") or {})["tainted"] is False, "nothing was missed"
        finally:
            if not before.exists():
                before.symlink_to(installed)
            subprocess.run(
                [*program, "down", "--state", tmp_path / "p"], cwd="/", env={**os.environ, "PYTHONPATH": str(before)},
                timeout=120, check=False,
            )  # fmt: skip
            for process in running:
                process.kill()
                process.wait()


def replicates(python: list[str], environment: dict[str, str], folder: Path) -> None:
    """A first copy, by the program as it is installed there and nothing of this tree."""
    program = [*python, "-m", "pydbt.cli.main"]
    where = {**os.environ, **environment}
    running: list[subprocess.Popen[bytes]] = []

    def start(*words: object) -> None:
        with (folder / "log").open("ab") as log:
            running.append(
                subprocess.Popen(
                    [*program, *map(str, words)], cwd="/", env=where, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            )

    def log() -> str:
        return (folder / "log").read_text()

    address, target = socket_address(), folder / "replica.img"
    with loop_device(folder, SIZE) as device:
        with device.path.open("r+b") as disk:
            disk.write(os.urandom(1 << 20))
        try:
            start("secondary", target, "--create", SIZE, "--listen", address, "--state", folder / "s")
            until(lambda: status_of(folder / "s") is not None, "the secondary answers")
            start("run", device.path, "--secondary", address, "--state", folder / "p")
            until(lambda: (status_of(folder / "p") or {}).get("mode") == "normal", "it follows")
            done = subprocess.run(
                [*program, "wait", "--state", folder / "p"], cwd="/", env=where, timeout=120, check=False
            )
            assert done.returncode == 0, log()
        finally:
            subprocess.run([*program, "down", "--state", folder / "p"], cwd="/", env=where, timeout=120, check=False)
            for process in running:
                process.terminate()
            for process in running:
                process.wait(60)
        done = subprocess.run(
            [*program, "secondary", target, "--state", folder / "s", "--replay-only"], cwd="/", env=where, check=False
        )
        assert done.returncode == 0, log()
        assert_identical(device.path, target, SIZE, "by the installed program")
