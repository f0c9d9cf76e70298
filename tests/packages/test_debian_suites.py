"""The Debian package in whole suites: it installs with the suite's own libraries, runs, and leaves nothing when it is purged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from pydbt.controller.state_dir import ALLOW_MEMORY
from tests.lab.patience import until
from tests.lab.programs import ROOT
from tests.lab.served_dashboard import Dashboard
from tests.packages.package import built, field
from tests.packages.roots import Root, root_over, suite_with

pytestmark = [pytest.mark.packages, pytest.mark.timeout(2400)]
SUITES = ("bookworm", "trixie")
STATIC = ROOT / "pydbt/dashboard/static"
STATE = "/var/lib/pydbt/data"
SECONDARY = f"controller secondary /srv/data.img --create 8M --listen unix:/srv/data.sock --state {STATE}"
# Every module, with the libraries that are installed there.
IMPORTS = """
import importlib, pkgutil, sys
sys.path.insert(0, "/usr/share/pydbt")
import bcc, pydbt
for module in pkgutil.walk_packages(pydbt.__path__, "pydbt."):
    importlib.import_module(module.name)
print("imported", len(sys.modules))
"""
# What dpkg, apt and the system's own tools leave of any package.
OF_THE_SYSTEM = (
    "/etc/.pwd.lock", "/etc/group-", "/etc/gshadow-", "/var/cache/apt/", "/var/cache/debconf/", "/var/cache/ldconfig/",
    "/var/lib/apt/", "/var/lib/dpkg/", "/var/log/", "/tmp/", "/run/systemd",
)  # fmt: skip


@pytest.fixture(params=SUITES)
def root(request: pytest.FixtureRequest) -> Iterator[Root]:
    with root_over(suite_with(request.param, field(built(), "Depends"))) as made:
        shutil.copy(built(), made.path("tmp/pydbt.deb"))
        made.path("srv").mkdir(exist_ok=True)
        yield made


def install(root: Root) -> str:
    return root.run("apt-get", "-q", "-y", "install", "--no-install-recommends", "/tmp/pydbt.deb").output


@contextmanager
def running_secondary(root: Root) -> Iterator[str]:
    """The number of its process, in the root."""
    root.shell(f"{ALLOW_MEMORY}=1 {SECONDARY} >/srv/log 2>&1 & echo $! >/srv/number")
    until(lambda: "listening" in root.path("srv/log").read_text(), "it listens")
    try:
        yield root.path("srv/number").read_text().strip()
    finally:
        root.run("controller", "down", "--state", STATE, check=False)


def test_the_installed_package_runs_and_a_purge_leaves_nothing(root: Root) -> None:
    before = root.files()
    install(root)
    version = field(built(), "Version").partition("+")[0].partition("-")[0]
    for name in ("controller", "pydbt"):
        assert root.run(name, "--version").output.split() == [name, version]
    root.run("controller", "configcheck")
    root.run("controller", "run", "--help")
    assert "imported" in root.run("python3", "-I", "-c", IMPORTS).output
    assert root.run("getent", "group", "pydbt").output.startswith("pydbt:")
    assert root.run("stat", "-c", "%a %U", "/var/lib/pydbt").output.split() == ["700", "root"]
    for unit in ("pydbt@.service", "pydbt-secondary@.service", "pydbt-arm@.service"):
        said = root.run("systemd-analyze", "verify", f"/usr/lib/systemd/system/{unit}", check=False)
        assert "pydbt" not in said.output, said.output
    root.write("etc/pydbt/volumes/data.toml", "[run]\nsorce = 1\n")
    assert root.run("controller", "configcheck", check=False).code == 2
    root.run("apt-get", "-q", "-y", "remove", "pydbt")
    assert root.path("etc/pydbt/volumes/data.toml").exists() and not root.path("usr/bin/controller").exists()
    root.run("apt-get", "-q", "-y", "purge", "pydbt")
    left = {name for name in root.files() - before if not name.startswith(OF_THE_SYSTEM)}
    assert not left and not before - root.files(), left


def test_a_replica_that_runs_refuses_the_removal_and_outlives_an_upgrade(root: Root) -> None:
    install(root)
    with running_secondary(root) as process:
        refused = root.run("apt-get", "-q", "-y", "purge", "pydbt", check=False)
        assert refused.code and "secondary of /srv/data.img" in refused.output, refused.output
        root.run("controller", "status", "--state", STATE)
        said = root.run("dpkg", "-i", "/tmp/pydbt.deb").output
        assert f"process {process} was not started by a unit" in said, said
        root.run("controller", "status", "--state", STATE)
    said = root.run("apt-get", "-q", "-y", "purge", "pydbt").output
    assert f"removed {STATE}" in said and not root.path("var/lib/pydbt").exists()
    assert root.path("srv/data.img").stat().st_size == 8 << 20, "the replica's data are no part of the package"


@contextmanager
def running_dashboard(root: Root) -> Iterator[Dashboard]:
    """At a port of its own of this machine's loopback, which the root shares."""
    root.shell("controller dashboard --listen 127.0.0.1:0 >/srv/link 2>/srv/dashboard.log & echo $! >/srv/dashboard")
    try:
        until(lambda: "\n" in root.path("srv/link").read_text(), "it serves")
        yield Dashboard(None, root.path("srv/link").read_text().splitlines()[0], root.path("srv/dashboard.log"))
    finally:
        root.shell("kill $(cat /srv/dashboard)", check=False)


def test_the_dashboard_is_served_with_the_suite_s_own_libraries(root: Root) -> None:
    install(root)
    with running_secondary(root), running_dashboard(root) as dashboard:
        assert dashboard.get("/", token="wrong").status in (401, 403)
        start = dashboard.get("/")
        assert (
            start.status == 200
            and b"main.js" in start.body
            and "default-src" in start.headers["content-security-policy"]
        )
        files = [path for path in STATIC.rglob("*") if path.suffix in (".js", ".css", ".svg")]
        assert files
        for path in files:
            answer = dashboard.get(f"/static/{path.relative_to(STATIC)}")
            assert answer.status == 200 and answer.body == path.read_bytes(), path
        (machine,) = dashboard.machines()
        assert [(one["name"], one["role"]) for one in machine["volumes"]] == [("data", "secondary")]
        metrics = dashboard.get("/metrics")
        assert metrics.status == 200 and b'volume="data"' in metrics.body
        with closing(dashboard.wire()) as wire:
            wire.sendall(
                b"GET /api/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer "
                + dashboard.token.encode()
                + b"\r\n\r\n"
            )
            told = b""
            while b"data:" not in told:
                piece = wire.recv(65536)
                assert piece, told
                told += piece
        assert "Traceback" not in dashboard.log.read_text()


def test_the_generator_orders_a_boot_with_the_suite_s_own_python(root: Root) -> None:
    install(root)
    root.write("etc/pydbt/volumes/data.toml", '[run]\nsource = "/dev/vda3"\n')
    root.write("etc/fstab", "/dev/vda3 /srv/data ext4 defaults 0 2\n")
    wants = "/etc/systemd/system/local-fs.target.wants"
    root.shell(f"mkdir -p {wants} && ln -s /usr/lib/systemd/system/pydbt-arm@.service {wants}/pydbt-arm@data.service")
    said = root.shell("mkdir /tmp/n && /usr/lib/systemd/system-generators/pydbt-generator /tmp/n /tmp/n /tmp/n").output
    order = root.path("tmp/n/pydbt-arm@data.service.d/pydbt-order.conf").read_text()
    assert "Before=srv-data.mount\n" in order and "Traceback" not in said
