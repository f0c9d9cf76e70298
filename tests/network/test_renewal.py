"""An authority is renewed with its own key: no pair of machines is without a connection on the way, and none needs a restart."""

from __future__ import annotations

import shutil
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from pydbt.cli.commands.pki import pki as pki_commands
from pydbt.controller import pki
from pydbt.core.errors import PydbtError, StateError, UsageError
from pydbt.core.identity_expiry import identity_problem, why_unusable
from pydbt.network.certificates import lifetime_of
from pydbt.network.tls import Secure, TlsSocket, load_identity
from pydbt.posix.atomic import replace_file
from tests.network.test_tls import accepted, meet, secure

NAMES = "alpha", "beta"
YEARS = timedelta(days=365 * 4)


def make(folder: Path, monkeypatch: pytest.MonkeyPatch, days: float) -> Path:
    """An authority that ends in this many days, or has ended, and the identities of two machines."""
    with monkeypatch.context() as patch:
        patch.setattr(pki, "AUTHORITY_DAYS", days)
        patch.setattr(pki, "_end_of", lambda _, one: lifetime_of(pki._public(one).decode()).ends)
        pki.make_authority(folder)
        for name in NAMES:
            pki.issue(folder, name)
    return folder


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return make(tmp_path / "pki", monkeypatch, 20)


def machine(authority: Path, name: str) -> Secure:
    """With a copy of its identity in a folder of its own, as on its own disk."""
    folder = authority.parent / name
    folder.mkdir(mode=0o700)
    copy(authority, name)
    return secure(folder / f"{name}.identity", folder / "state")


def copy(authority: Path, name: str) -> None:
    shutil.copy2(authority / f"{name}.identity", authority.parent / name)


class DiskThatFills:
    """Takes this many files."""

    def __init__(self, files: int) -> None:
        self._left = files

    def __call__(self, path: Path, data: bytes) -> None:
        if not self._left:
            raise StateError("the disk is full")
        self._left -= 1
        replace_file(path, data)


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("order", [NAMES, NAMES[::-1]], ids=["alpha first", "beta first"])
def test_at_each_step_of_a_renewal_both_sides_accept_each_other_and_know_the_keys(short: Path, order: tuple[str, str]):
    sides = {name: machine(short, name) for name in NAMES}

    def both_ways() -> None:
        for client, server in (("alpha", "beta"), ("beta", "alpha")):
            assert accepted(sides[server], sides[client]) == ""

    both_ways()
    before = {name: side.state.ends for name, side in sides.items()}
    pki.renew_authority(short)
    both_ways()
    for name in order:
        copy(short, name)
        sides[name].reload()
        both_ways()
    for name, side in sides.items():
        assert side.state.ends > before[name] + YEARS
        assert not identity_problem(side.state, before[name] + timedelta(days=1))


def test_when_the_earlier_authority_has_ended_the_renewed_machines_go_on_and_the_others_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = make(tmp_path / "pki", monkeypatch, -0.01)
    sides = {name: machine(authority, name) for name in NAMES}
    assert all("pki renew" in why_unusable(side.state, datetime.now(UTC)) for side in sides.values())
    pki.renew_authority(authority)
    copy(authority, "alpha")
    sides["alpha"].reload()
    assert not why_unusable(sides["alpha"].state, datetime.now(UTC))
    _, far = meet(sides["beta"].client, sides["alpha"].server)
    assert isinstance(far, PydbtError) and "its own copy of the authority's" in str(far)
    copy(authority, "beta")
    sides["beta"].reload()
    assert accepted(sides["beta"], sides["alpha"]) == ""


def test_an_earlier_connection_goes_on_through_a_renewal(short: Path) -> None:
    alpha, beta = (machine(short, name) for name in NAMES)
    near, far = meet(alpha.client, beta.server)
    assert isinstance(near, TlsSocket) and isinstance(far, TlsSocket)
    pki.renew_authority(short)
    for side, name in ((alpha, "alpha"), (beta, "beta")):
        copy(short, name)
        side.reload()
    assert near.sendmsg([memoryview(b"more")]) == 4
    received = memoryview(bytearray(8))
    assert far.recv_into(received) == 4 and bytes(received[:4]) == b"more"
    assert not beta.is_revoked(far)


def test_a_renewal_that_was_interrupted_at_any_file_is_made_whole_by_the_next_one(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = {name: machine(short, name) for name in NAMES}
    for fails_at in range(3):
        with monkeypatch.context() as patch, pytest.raises(StateError):
            patch.setattr(pki, "replace_file", DiskThatFills(fails_at))
            pki.renew_authority(short)
        for name in NAMES:
            copy(short, name)
            sides[name].reload()
        assert accepted(sides["beta"], sides["alpha"]) == "" == accepted(sides["alpha"], sides["beta"])
    assert {path.stem for path in pki.renew_authority(short).identities} == {*NAMES}


def test_a_revoked_identity_is_left_and_named(short: Path) -> None:
    pki.revoke_key(short, "alpha")
    before = (short / "alpha.identity").read_bytes()
    done = pki.renew_authority(short, 3)
    assert done.revoked == ["alpha"] and [path.stem for path in done.identities] == ["beta"]
    assert (short / "alpha.identity").read_bytes() == before
    assert load_identity(short / "beta.identity").state.own.ends < datetime.now(UTC) + timedelta(days=4)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("nothing", "holds no authority: make one with 'controller pki init"),
        ("no certificate", "authority.pem is missing; put it back"),
        ("no key", "authority.key is missing; put it back"),
        ("another key", "do not belong together"),
        ("half a key", "cannot be read"),
        ("foreign", "issued by another authority than the one in .* --replace"),
        ("renamed", "gamma.identity is the identity of 'alpha'"),
        ("half an identity", "is not an identity"),
        ("for all to read", "run chmod 600"),
        ("for all to write", "not safe from other users"),
    ],
)
def test_a_renewal_that_is_impossible_is_one_sentence_and_nothing_is_changed(
    short: Path, tmp_path: Path, what: str, words: str
) -> None:
    other = tmp_path / "other"
    pki.make_authority(other)
    folder = short
    match what:
        case "nothing":
            folder = tmp_path / "empty"
            folder.mkdir(mode=0o700)
        case "no certificate":
            (short / "authority.pem").unlink()
        case "no key":
            (short / "authority.key").unlink()
        case "another key":
            shutil.copy2(other / "authority.key", short)
        case "half a key":
            (short / "authority.key").write_text("-----BEGIN")
        case "foreign":
            shutil.copy2(pki.issue(other, "delta"), short)
        case "renamed":
            (short / "alpha.identity").rename(short / "gamma.identity")
        case "half an identity":
            (short / "beta.identity").write_text("half a copy")
        case "for all to read":
            (short / "beta.identity").chmod(0o644)
        case "for all to write":
            short.chmod(0o777)
    before = content(folder)
    with pytest.raises((UsageError, StateError), match=words) as told:
        pki.renew_authority(folder)
    assert str(told.value).isprintable() and content(folder) == before


def test_a_new_authority_takes_over_the_identities_with_their_keys(short: Path, tmp_path: Path) -> None:
    """When its key is stolen or lost. Identities of both authorities do not accept each other: both are to be there first."""
    alpha, beta = (machine(short, name) for name in NAMES)
    assert accepted(beta, alpha) == ""
    new = tmp_path / "new"
    pki.make_authority(new)
    for name in NAMES:
        shutil.copy2(short / f"{name}.identity", new)
        shutil.copy2(pki.issue(new, name, replace=True), tmp_path / name)
    alpha.reload()
    assert "another authority" in accepted(beta, alpha)
    beta.reload()
    assert accepted(beta, alpha) == "", "the volume knows the key"


def test_the_command_names_the_files_that_it_made_and_the_next_step(short: Path, tmp_path: Path) -> None:
    def run(*words: object) -> str:
        done = CliRunner().invoke(pki_commands, list(map(str, words)), standalone_mode=False)
        assert done.exception is None, done
        return done.output

    pki.issue(short, "gamma")
    pki.revoke_key(short, "gamma")
    said = run("renew", short)
    assert "the same authority, valid until" in said and f"made {short / 'alpha.identity'}, valid until" in said
    assert "left gamma as it is, whose key is revoked" in said and "SIGHUP" in said
    assert "accept each other until" in said
    for path in short.glob("*.identity"):
        path.unlink()
    assert "copy the identity of each machine to" in run("renew", short)
    assert "'controller pki renew" in run("issue", short, "alpha", "--days", 36500)


def test_two_that_revoke_at_the_same_time_are_both_in_the_list(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, begun = pki.replace_file, threading.Event()

    def slowly(path: Path, data: bytes) -> None:
        begun.set()
        time.sleep(0.2)
        write(path, data)

    monkeypatch.setattr(pki, "replace_file", slowly)
    first = threading.Thread(target=pki.revoke_key, args=(short, "alpha"))
    first.start()
    assert begun.wait(30.0)
    pki.revoke_key(short, "beta")
    first.join()
    assert [line.split()[1] for line in (short / "revoked").read_text().splitlines()] == ["alpha", "beta"]
