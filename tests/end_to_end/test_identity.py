"""Replication between machines that prove who they are: outages, strangers, and certificates that will not do."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
from collections import Counter
from pathlib import Path

import pytest

from pydbt.controller import pki
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import loop_device, make_filesystem, mounted
from tests.lab.load import FileStress, load, write_files
from tests.lab.patience import until
from tests.lab.programs import command

MIB = 1 << 20
SIZE = 64 * MIB


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    folder = tmp_path / "pki"
    assert command("pki", "init", folder).code == 0
    return folder


def identity(authority: Path, name: str) -> Path:
    outcome = command("pki", "issue", authority, name)
    assert outcome.code == 0, outcome
    return authority / f"{name}.identity"


@contextlib.contextmanager
def secured(tmp_path: Path, device, ours: Path, theirs: Path):
    """A cluster over a network, in TLS alone."""
    options = {"primary_options": ("--identity", ours, "--ack-timeout", 4), "secondary_options": ("--identity", theirs)}
    with cluster(tmp_path / "c", device, wired=True, **options) as both:
        yield both


def test_a_volume_is_replicated_through_an_outage_in_tls(tmp_path, authority, chance):
    ours, theirs = identity(authority, "alpha"), identity(authority, "beta")
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with secured(tmp_path, device, ours, theirs) as both:
            both.start()
            both.until_mode("normal")
            with mounted(device, tmp_path / "mnt") as folder, load() as running:
                running.add(FileStress(folder / "a", chance.randrange(1 << 30)), 0.005)
                until(lambda: running.steps > 40, "some work is done")
                both.wire.cut()
                both.until_mode("unsynchronized")
                before = running.steps
                until(lambda: running.steps > before + 40, "some work is done in the outage")
                both.wire.mend()
                both.until_mode("normal")
                running.stop()
            both.wait()
            both.compare("after an outage in TLS")
            assert (both.primary_state / "peer").read_text() == "beta\n"
            assert (both.secondary_state / "peer").read_text() == "alpha\n"


def refused_start(both: Cluster, *words: str) -> None:
    """With ``--no-wait``: what closes the connection at once may be a proxy before a secondary that is to come."""
    start = ("run", both.source.path, "--secondary", both.address, "--state", both.primary_state, "--no-wait")
    outcome = command(*start, *both.primary_options)
    assert outcome.code == 5, outcome
    for word in words:
        assert word in outcome.errors, outcome
    assert not (both.primary_state / "volume.json").exists()


@pytest.mark.parametrize("what", ["foreign", "plain primary", "plain secondary", "another name"])
def test_a_peer_with_another_identity_gets_one_sentence_and_nothing_else(tmp_path, authority, what):
    ours, theirs = identity(authority, "alpha"), identity(authority, "beta")
    words: tuple[str, ...]
    match what:
        case "foreign":
            assert command("pki", "init", tmp_path / "other").code == 0
            ours, words = identity(tmp_path / "other", "alpha"), ("another authority",)
        case "another name":
            words = ("'beta'", "--peer beta")
        case _:
            words = ("--identity",)
    with loop_device(tmp_path, SIZE) as device, secured(tmp_path, device, ours, theirs) as both:
        if what == "plain primary":
            both.primary_options = ("--insecure",)
        if what == "plain secondary":
            both.secondary_options = ("--insecure",)
        if what == "another name":
            both.primary_options = (*both.primary_options, "--peer", "gamma")
        both.start_secondary()
        refused_start(both, *words)
        assert (both.secondary_status() or {}).get("volume") is None


def test_a_primary_whose_key_is_revoked_learns_that_and_goes_on_with_a_new_identity(tmp_path, authority):
    ours, theirs = (tmp_path / name / f"{name}.identity" for name in ("alpha", "beta"))
    for path in (ours, theirs):
        path.parent.mkdir(mode=0o700)
        shutil.copy2(identity(authority, path.stem), path)  # each on its own machine, with its own list of revoked keys
    with loop_device(tmp_path, SIZE) as device, secured(tmp_path, device, ours, theirs) as both:
        both.start()
        both.until_mode("normal")
        assert command("pki", "revoke", authority, "alpha").code == 0
        shutil.copy2(authority / "revoked", theirs.parent)
        os.kill(both.secondary.process.pid, signal.SIGHUP)
        until(lambda: "the key of 'alpha' is revoked" in both.status()["connection_problem"], "the primary is told why")
        until(lambda: "turned away alpha (" in both.secondary.words(), "and so is the operator of the secondary")
        assert command("pki", "issue", "--replace", authority, "alpha").code == 0
        shutil.copy2(authority / "alpha.identity", ours)
        os.kill(both.primary.process.pid, signal.SIGHUP)
        until(lambda: "with another key" in both.status()["connection_problem"], "the new key is not known yet")
        both.secondary.terminate()
        both.secondary_options = (*both.secondary_options, "--peer", "alpha")
        both.start_secondary()
        both.until_mode("normal")
        assert not both.status()["connection_problem"]


@pytest.mark.variant
def test_an_authority_is_renewed_while_both_run_and_the_pair_connects_again_after_each_step(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pki, "AUTHORITY_DAYS", 10)
        near_its_end = pki.make_authority(tmp_path / "short").parent
    ours, theirs = (tmp_path / name / f"{name}.identity" for name in ("alpha", "beta"))
    for path in (ours, theirs):
        path.parent.mkdir(mode=0o700)
        shutil.copy2(identity(near_its_end, path.stem), path)
    with loop_device(tmp_path, SIZE) as device, secured(tmp_path, device, ours, theirs) as both:
        both.start()
        both.until_mode("normal")
        assert "pki renew" in both.status()["identity"]["problem"]
        outcome = command("pki", "renew", near_its_end)
        assert outcome.code == 0 and outcome.output.count(".identity") == 2, outcome
        for path, process in ((theirs, both.secondary), (ours, both.primary)):
            shutil.copy2(near_its_end / path.name, path)
            os.kill(process.process.pid, signal.SIGHUP)
            until(lambda process=process: "the identity was read again" in process.words(), "it is read again")
            both.wire.cut()
            both.until_mode("unsynchronized")
            both.wire.mend()
            both.until_mode("normal")
        for status in (both.status(), both.secondary_status()):
            assert status is not None and not status["identity"]["problem"]
        both.wait()
        both.compare("after its authority was renewed")


@pytest.mark.variant
def test_a_crowd_of_strangers_neither_disturbs_nor_floods(tmp_path, authority, chance):
    ours, theirs = identity(authority, "alpha"), identity(authority, "beta")
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with secured(tmp_path, device, ours, theirs) as both:
            both.start()
            both.until_mode("normal")
            before = memory_of(both.secondary.process.pid)
            host, _, port = both.address.rpartition(":")
            crowd = [crowd_member(host, int(port), number) for number in range(300)]
            with mounted(device, tmp_path / "mnt") as folder:
                write_files(folder, chance)
            both.wait()
            assert both.status()["mode"] == "normal"
            assert memory_of(both.secondary.process.pid) - before < 64 * MIB
            lines = [line for line in both.secondary.words().splitlines() if "turned away" in line]
            reasons = Counter(line.rpartition("no primary: ")[2].partition(" (")[0] for line in lines)
            assert max(reasons.values()) <= 2, lines  # one per minute for each
            for sock in crowd:
                sock.close()
            both.compare("with a crowd at the door")


@pytest.mark.variant
def test_a_primary_finds_its_place_while_a_crowd_of_its_own_address_keeps_coming(tmp_path, authority, chance):
    ours, theirs = identity(authority, "alpha"), identity(authority, "beta")
    with loop_device(tmp_path, SIZE) as device, secured(tmp_path, device, ours, theirs) as both:
        both.start_secondary()
        host, _, port = both.address.rpartition(":")
        crowd: list[socket.socket] = []
        with load() as running:
            running.add(lambda: crowd.append(crowd_member(host, int(port), 0)), 0.02)
            until(lambda: len(crowd) > 60, "the crowd is there")
            both.start_primary()
            both.until_mode("normal")
            both.wire.cut()
            both.until_mode("unsynchronized")
            both.wire.mend()
            both.until_mode("normal")
            running.stop()
        for sock in crowd:
            sock.close()
        both.wait()
        both.compare("with a crowd that kept coming")


def crowd_member(host: str, port: int, number: int) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(2)
    with contextlib.suppress(OSError):
        sock.connect((host, port))
        sock.sendall((b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(100))[number % 3])
    return sock


def memory_of(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def test_nobody_but_the_owner_gets_at_the_control_sockets_and_nothing_else_listens(tmp_path, authority):
    ours, theirs = identity(authority, "alpha"), identity(authority, "beta")
    with loop_device(tmp_path, SIZE) as device, secured(tmp_path, device, ours, theirs) as both:
        both.start()
        for state in (both.primary_state, both.secondary_state):
            mode = os.stat(state / "control.sock").st_mode
            assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600
        assert listening(both.primary.process.pid) == 0
        assert listening(both.secondary.process.pid) == 1


def listening(pid: int) -> int:
    """TCP sockets a process listens on, in its own network namespace."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(entry).removeprefix("socket:[").removesuffix("]"))
    count = 0
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            count += fields[3] == "0A" and fields[9] in inodes
    return count
