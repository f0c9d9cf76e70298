"""The Debian package of this tree: whole, true to the program, and without a word of lintian."""

from __future__ import annotations

import gzip
import os
import re
import stat
import subprocess
import sys
import tarfile
import tomllib
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest

from tests.lab.programs import ROOT
from tests.packages.package import build, built, copy_of_the_tree, field

sys.path.append(str(ROOT / "packaging"))
from generate.release import newest

pytestmark = pytest.mark.packages
DEBIAN = ROOT / "packaging/debian"
PLACE = "usr/share/pydbt/pydbt"
# Debian counts numpy's versions with an epoch (Debian Policy, 5.6.12).
EPOCHS = {"numpy": "1:"}
WORD = re.compile(r"([a-z0-9-]+)(?::any)?(?: \(>= ([^)]+)\))?")


@cache
def members(package: Path) -> dict[str, tarfile.TarInfo]:
    raw = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, timeout=60, check=True).stdout
    with tarfile.open(fileobj=BytesIO(raw)) as content:
        return {member.name.removeprefix("./"): member for member in content}


def text_of(package: Path, name: str) -> str:
    raw = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, timeout=60, check=True).stdout
    with tarfile.open(fileobj=BytesIO(raw)) as content:
        found = content.extractfile(f"./{name}")
        assert found is not None, name
        return found.read().decode()


def needs(text: str) -> dict[str, str]:
    """The packages of a list of dependencies, each with its oldest version or nothing."""
    return dict(match.groups(default="") for entry in text.split(",") if (match := WORD.match(entry.strip())))


def of_control(name: str) -> dict[str, str]:
    text = (DEBIAN / "control").read_text()
    match = re.search(rf"^{name}:\n((?: .*\n)+)", text, re.MULTILINE)
    assert match is not None
    return needs(match[1].replace("\n", ""))


@pytest.mark.smoke
def test_the_package_is_whole() -> None:
    content = members(built())
    modules = {str(path.relative_to(ROOT / "pydbt")) for path in (ROOT / "pydbt").rglob("*.py")}
    missing = {name for name in modules if f"{PLACE}/{name}" not in content}
    assert not missing
    for path in (ROOT / "bpf").glob("*.[ch]"):
        assert text_of(built(), f"{PLACE}/bpf/{path.name}") == path.read_text()
    static = ROOT / "pydbt/dashboard/static"
    told_by_copyright = ("LICENSE", "README.md")
    files = [path for path in static.rglob("*") if path.is_file() and path.name not in told_by_copyright]
    pages = {f"{PLACE}/dashboard/static/{path.relative_to(static)}" for path in files}
    assert pages <= set(content)
    assert content["usr/lib/ocf/resource.d/pydbt/volume"].mode & 0o777 == 0o755
    for name in ("etc/pydbt/volumes", "etc/pydbt/cluster/run", "etc/pydbt/cluster/secondary",
                 "usr/lib/sysusers.d/pydbt.conf", "usr/lib/tmpfiles.d/pydbt.conf",
                 "usr/lib/systemd/system/pydbt-hold@.service", "usr/share/initramfs-tools/hooks/pydbt",
                 "etc/kernel/postinst.d/zz-pydbt",
                 "usr/share/pydbt/monitoring/alerts.yml", "usr/share/pydbt/monitoring/grafana.json",
                 "usr/share/doc/pydbt/changelog.gz", "usr/share/doc/pydbt/copyright",
                 "usr/share/doc/pydbt/examples/volume.toml", "usr/share/doc/pydbt/docs/operating/installation.md"):  # fmt: skip
        assert name in content, name
    assert content["usr/share/initramfs-tools/hooks/pydbt"].mode & stat.S_IXUSR, "others are left out of the RAM disk"
    assert content["etc/kernel/postinst.d/zz-pydbt"].mode & stat.S_IXUSR, "others are left out by run-parts"
    assert content["usr/bin/pydbt"].linkname == "controller" and content["usr/bin/controller"].mode & stat.S_IXUSR
    assert not [name for name in content if "__pycache__" in name or "/tests" in name or name.endswith(".sh")]
    assert {(member.uname, member.gname) for member in content.values()} == {("root", "root")}
    assert not [name for name, member in content.items() if member.mode & 0o022 and not member.issym()]


@pytest.mark.smoke
def test_its_changelog_has_the_newest_release_below_the_commit_that_it_was_built_from(tmp_path: Path) -> None:
    raw = subprocess.run(["dpkg-deb", "--fsys-tarfile", built()], capture_output=True, timeout=60, check=True).stdout
    with tarfile.open(fileobj=BytesIO(raw)) as content:
        packed = content.extractfile("./usr/share/doc/pydbt/changelog.Debian.gz")
        assert packed is not None
        text = gzip.decompress(packed.read()).decode()
    (tmp_path / "changelog").write_text(text)
    words = ["dpkg-parsechangelog", "--all", "-l", tmp_path / "changelog", "-S"]
    answers = [
        subprocess.run([*words, name], capture_output=True, text=True, timeout=60, check=True)
        for name in ("Version", "Changes")
    ]
    assert not any(one.stderr for one in answers), "Debian's own tools read it without a warning"
    assert answers[0].stdout.strip() == field(built(), "Version")
    release = newest()
    assert f"pydbt ({release.version}-1) " in answers[1].stdout
    told = " ".join(answers[1].stdout.replace("\n .\n", " ").split())
    assert all(" ".join(entry.split()) in told for entry in release.entries)


@pytest.mark.smoke
def test_its_units_are_the_project_s_and_run_the_package_s_own_program() -> None:
    units = [path for kind in ("service", "socket") for path in (ROOT / "packaging/systemd").glob(f"*.{kind}")]
    assert ROOT / "packaging/systemd/pydbt-dashboard.socket" in units
    for path in units:
        lines = text_of(built(), f"usr/lib/systemd/system/{path.name}").splitlines()
        own = [line.replace("ExecStart=/usr/bin/controller ", "ExecStart=controller ") for line in lines]
        added = set(own) - set(path.read_text().splitlines())
        assert [line for line in own if line not in added] == path.read_text().splitlines()
        assert all(line.startswith("Documentation=") for line in added)
        if path.suffix == ".service":
            assert "ExecStart=/usr/bin/controller" in "\n".join(lines), "another one in /usr/local/bin is not taken"


@pytest.mark.smoke
def test_no_script_of_it_enables_or_starts_a_unit_whichever_debhelper_builds_it(tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--control", built(), tmp_path / "control"], timeout=60, check=True)
    for path in (tmp_path / "control").iterdir():
        assert "deb-systemd" not in path.read_text(), path.name
    assert re.search(r"^override_dh_installsystemd:\n\n", (DEBIAN / "rules").read_text(), re.MULTILINE), (
        "Debian 13's debhelper would, for a unit that is no template"
    )


@pytest.mark.smoke
def test_the_generator_is_where_systemd_looks_for_it_and_can_be_run() -> None:
    name = "usr/lib/systemd/system-generators/pydbt-generator"
    assert text_of(built(), name) == (ROOT / "packaging/systemd/pydbt-generator").read_text()
    assert members(built())[name].mode & 0o777 == 0o755


def test_lintian_has_nothing_to_say(tmp_path: Path) -> None:
    done = subprocess.run(
        ["lintian", "--allow-root", "--tag-display-limit", "0", "--info", "--fail-on", "error,warning,info", built()],
        env={**os.environ, "TMPDIR": str(tmp_path)},  # where it leaves files
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    said = [line for line in done.stdout.splitlines() if re.match(r"[EWI]: ", line)]
    assert not said, done.stdout
    assert done.returncode in (0, 2), done.stderr


@pytest.mark.smoke
def test_the_package_needs_the_libraries_that_the_program_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {"python3-bpfcc": of_control("Depends")["python3-bpfcc"], "python3": project["requires-python"][2:]}
    for entry in project["dependencies"]:
        name, _, version = entry.partition(">=")
        wanted[f"python3-{name}"] = EPOCHS.get(name, "") + version
    assert of_control("Depends") == wanted
    package = needs(field(built(), "Depends"))
    assert wanted.items() <= package.items() and field(built(), "Architecture") == "all"


@pytest.mark.smoke
def test_the_machines_of_the_tests_have_the_libraries_of_the_package() -> None:
    """They have no network from which apt could bring them."""
    done = subprocess.run([ROOT / "scripts/setup", "--packages"], capture_output=True, text=True, check=True)
    listed = (ROOT / "tests/vm/recipe/packages").read_text()
    there = set(done.stdout.split()) | {line for line in listed.splitlines() if not line.startswith("#")}
    assert not {name for name in of_control("Depends") if name.startswith("python3")} - there


@pytest.mark.smoke
def test_the_build_dependencies_are_those_that_are_installed_for_the_tests() -> None:
    done = subprocess.run([ROOT / "scripts/setup", "--build-packages"], capture_output=True, text=True, check=True)
    provided = {"debhelper-compat": "debhelper", "dh-sequence-installsysusers": "debhelper"}
    provided["dh-sequence-python3"] = "dh-python"
    wanted = {provided.get(name, name) for name in of_control("Build-Depends")} - {"python3"}
    assert set(done.stdout.split()) == wanted | {"dpkg-dev"}


def test_the_same_tree_makes_the_same_package(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        again = build(ROOT, tmp_path / "again")
    finally:
        os.umask(before)
    assert again.name == built().name and again.read_bytes() == built().read_bytes()


def test_pages_and_completions_that_are_generated_are_where_the_system_looks(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path / "tree")
    (tree / "packaging/generated.py").write_text(
        "import pathlib, sys\n"
        "import pydbt.cli.group\n"
        "for name in ('man/controller.8', 'man/pydbt.volume.5', 'bash/controller', 'zsh/_controller', 'fish/controller.fish'):\n"
        "    path = pathlib.Path(sys.argv[1], name)\n"
        "    path.parent.mkdir(parents=True, exist_ok=True)\n"
        "    section = name.rpartition('.')[2]\n"
        "    path.write_text(f'.TH X {section}\\n.SH NAME\\nx \\\\- y\\n')\n"
        "pathlib.Path(sys.argv[1], 'bash/pydbt').symlink_to('controller')\n"
    )
    package = build(tree, tmp_path / "out")
    assert re.fullmatch(r"pydbt_[0-9.]+-1_all\.deb", package.name), "a release: there is no commit to name"
    for name in ("man/man8/controller.8.gz", "man/man5/pydbt.volume.5.gz", "bash-completion/completions/controller",
                 "zsh/vendor-completions/_controller", "fish/vendor_completions.d/controller.fish"):  # fmt: skip
        assert f"usr/share/{name}" in members(package), name
    assert members(package)["usr/share/bash-completion/completions/pydbt"].linkname == "controller"


def test_a_commit_behind_a_release_is_an_upgrade_of_it(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=x", "-c", "user.email=x@localhost", "-C", tree, *words], check=True, timeout=60
        )  # fmt: skip

    tree = copy_of_the_tree(tmp_path / "tree")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "now")
    versions = [field(build(tree, tmp_path / "commit"), "Version")]
    git("tag", "v" + versions[0].partition("+")[0])
    versions.append(field(build(tree, tmp_path / "release"), "Version"))
    assert re.fullmatch(r"[0-9.]+-1", versions[1]) and "+git" in versions[0]
    done = subprocess.run(["dpkg", "--compare-versions", versions[0], "gt", versions[1]], check=False)
    assert done.returncode == 0, "what was installed from a commit is newer than the release before it"


@pytest.mark.parametrize("words", [(), ("--fast",), ("one", "two"), ("/dev/null/x",)])
def test_a_wrong_call_is_refused_in_one_sentence(words: tuple[str, ...]) -> None:
    done = subprocess.run([ROOT / "scripts/package", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "scripts/package: " in done.stderr.splitlines()[-1]
