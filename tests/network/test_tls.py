"""Both sides prove who they are. Any other peer gets one clear sentence and nothing more."""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.controller import pki
from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.errors import PeerError, StateError, UsageError
from pydbt.core.protocol.frames import Blocks, Ping
from pydbt.network import tls
from pydbt.network.certificates import revoked_beside
from pydbt.network.connection import FramedConnection
from pydbt.network.tls import Secure, TlsSocket, load_identity
from pydbt.store.peer_pin import PeerPin
from tests.lab.patience import PATIENCE_S


@pytest.fixture(autouse=True)
def short_farewells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is turned away here keeps its end open."""
    monkeypatch.setattr(tls, "TURN_AWAY_S", 0.2)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    pki.make_authority(tmp_path / "pki")
    return tmp_path / "pki"


def test_an_authority_where_no_folder_can_be_is_refused() -> None:
    with pytest.raises(StateError, match="cannot be made"):
        pki.make_authority(Path("/proc/pki"))


def secure(identity: Path, state: Path, peer: str | None = None) -> Secure:
    return Secure(load_identity(identity), PeerPin(state, peer, any_key=True))


def meet(client: Callable[[socket.socket], object], server: Callable[[socket.socket], object]) -> tuple[object, object]:
    """What both sides come to: a result, or the error that it ended with."""
    near, far = socket.socketpair()
    outcome: list[object] = []

    def serve() -> None:
        try:
            outcome.append(server(far))
        except PeerError as error:
            outcome.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        ours: object = client(near)
        if isinstance(ours, TlsSocket):
            ours.settimeout(PATIENCE_S)
    except PeerError as error:
        ours = error
    if isinstance(ours, Exception):
        near.close()
    thread.join(20)
    return ours, outcome[0]


def test_both_sides_know_each_other_by_name_and_speak_tls_1_3(tmp_path, authority):
    one, two = (secure(pki.issue(authority, name), tmp_path / name) for name in ("one", "two"))
    near, far = meet(one.client, two.server)
    assert (near.peer_name, far.peer_name) == ("two", "one")
    assert near._tls.version() == far._tls.version() == "TLSv1.3"


def test_frames_cross_both_ways_at_once_whole_and_in_order(tmp_path, authority):
    one, two = (secure(pki.issue(authority, name), tmp_path / name) for name in ("one", "two"))
    near, far = (FramedConnection(sock, silence_s=20) for sock in meet(one.client, two.server))
    data = os.urandom(3 << 20)
    frame = Blocks(1, SectorTable.of([0], [len(data) // 512]), (data[: 1 << 20], data[1 << 20 :]))
    received: dict[str, int] = {}

    def send(connection: FramedConnection) -> None:
        for number in range(20):
            connection.send_frames([Ping(number), frame])

    def receive(name: str, connection: FramedConnection) -> None:
        for number in range(20):
            assert connection.recv_frame() == Ping(number)
            assert connection.recv_frame() == frame
            received[name] = number

    threads = [threading.Thread(target=send, args=(end,)) for end in (near, far)]
    threads += [threading.Thread(target=receive, args=pair) for pair in (("near", near), ("far", far))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert received == {"near": 19, "far": 19}
    near.finish()
    assert far.recv_frame() is None
    for end in (near, far):
        end.close()


def test_a_peer_that_takes_nothing_for_a_while_loses_no_byte(tmp_path, authority):
    one, two = (secure(pki.issue(authority, name), tmp_path / name) for name in ("one", "two"))
    near, far = meet(one.client, two.server)
    near.settimeout(0.05)
    data = os.urandom(8 << 20)
    got = bytearray()
    late = threading.Timer(0.5, lambda: [None for _ in iter(lambda: take(far, got), 0)])
    late.start()
    rest = memoryview(data)
    timeouts = 0
    while rest:
        try:
            rest = rest[near.sendmsg([rest[:300_000], rest[300_000:]]) :]
        except TimeoutError:
            timeouts += 1
    near.close()
    late.join(20)
    assert timeouts > 0 and bytes(got) == data


def take(sock: TlsSocket, into: bytearray) -> int:
    buffer = memoryview(bytearray(65536))
    count = sock.recv_into(buffer)
    into += buffer[:count]
    return count


def test_a_stranger_of_another_authority_is_refused_by_both(tmp_path, authority):
    pki.make_authority(tmp_path / "foreign")
    ours = secure(pki.issue(authority, "one"), tmp_path / "one")
    theirs = secure(pki.issue(tmp_path / "foreign", "two"), tmp_path / "two")
    near, far = meet(ours.client, theirs.server)
    assert "another authority" in str(near)
    assert isinstance(far, PeerError)
    near, far = meet(theirs.client, ours.server)
    assert "another authority" in str(near) and isinstance(near, PeerError)


@pytest.mark.parametrize(
    ("begins", "words"),
    [(timedelta(days=-30), "has expired"), (timedelta(days=30), "not valid yet")],
    ids=["expired", "not valid yet"],
)
def test_a_certificate_out_of_its_time_is_refused_by_name_of_the_reason(tmp_path, authority, begins, words):
    good = secure(pki.issue(authority, "good"), tmp_path / "good")
    odd = secure(pki.issue(authority, "odd", 1, datetime.now(UTC) + begins), tmp_path / "odd")
    near, _ = meet(good.client, odd.server)
    assert isinstance(near, PeerError) and words in str(near)
    _, far = meet(odd.client, good.server)
    assert isinstance(far, PeerError) and words in str(far)


def test_a_client_that_is_refused_hears_why_when_it_reads(tmp_path, authority):
    good = secure(pki.issue(authority, "good"), tmp_path / "good")
    odd = secure(pki.issue(authority, "odd", 1, datetime.now(UTC) - timedelta(days=30)), tmp_path / "odd")
    near, _ = meet(odd.client, good.server)
    if isinstance(near, TlsSocket):  # TLS 1.3: the client is through before its certificate was looked at
        with pytest.raises(PeerError, match="this machine's certificate has expired"):
            FramedConnection(near).recv_frame()
    else:
        assert "this machine's certificate has expired" in str(near)


def test_another_machine_of_the_same_authority_does_not_get_at_a_volume(tmp_path, authority):
    identities = {name: pki.issue(authority, name) for name in ("primary", "secondary", "other")}
    state = tmp_path / "state"
    server = secure(identities["secondary"], state)
    _, far = meet(secure(identities["primary"], tmp_path / "a").client, server.server)
    server.remember(far)
    assert (state / "peer").read_text() == "primary\n"
    _, far = meet(secure(identities["other"], tmp_path / "b").client, secure(identities["secondary"], state).server)
    assert "'other'" in str(far) and "--peer other" in str(far)
    _, far = meet(
        secure(identities["other"], tmp_path / "b").client, secure(identities["secondary"], state, "other").server
    )
    assert isinstance(far, TlsSocket), "the operator's word did not count"


def test_plain_and_tls_tell_each_other_apart_in_one_sentence(tmp_path, authority):
    one = secure(pki.issue(authority, "one"), tmp_path / "one")

    def plain(sock: socket.socket) -> bytes:
        sock.settimeout(PATIENCE_S)
        sock.sendall(b"PDBT" + bytes(60))
        return sock.recv(100)

    _, far = meet(plain, one.server)
    assert "without --identity" in str(far)
    near, _ = meet(one.client, lambda sock: sock.close())
    assert "without --identity" in str(near)


def test_a_silent_peer_is_given_up(tmp_path, authority, monkeypatch):
    monkeypatch.setattr(tls, "TLS_HANDSHAKE_S", 0.3)
    one = secure(pki.issue(authority, "one"), tmp_path / "one")
    near, far = socket.socketpair()
    with pytest.raises(PeerError, match="did not speak TLS within"):
        one.server(near)
    far.close()


def test_a_client_of_an_older_tls_is_refused(tmp_path, authority):
    one = secure(pki.issue(authority, "one"), tmp_path / "one")
    identity = pki.issue(authority, "old")

    def old(sock: socket.socket) -> object:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(identity)
        try:
            return context.wrap_socket(sock)
        except OSError as error:
            return error

    near, far = meet(old, one.server)
    assert isinstance(near, OSError) and isinstance(far, PeerError)


def test_an_identity_that_others_can_read_is_refused(authority):
    path = pki.issue(authority, "one")
    assert path.stat().st_mode & 0o777 == 0o600
    assert (authority / pki.AUTHORITY_KEY).stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        load_identity(path)


RUBBISH = b"-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", RUBBISH * 2 + b"PRIVATE KEY"])
def test_a_file_that_is_not_an_identity_is_named(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UsageError, match=str(path)):
        load_identity(path)
    with pytest.raises(UsageError, match="cannot be read"):
        load_identity(tmp_path / "missing")


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(authority):
    path = pki.issue(authority, "one")
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    certificates = path.read_text().partition("-----END PRIVATE KEY-----\n")[2]
    for kind in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
        hidden = key.private_bytes(serialization.Encoding.PEM, kind, serialization.BestAvailableEncryption(b"secret"))
        path.write_bytes(hidden + certificates.encode())
        with pytest.raises(UsageError, match=r"is encrypted, and nobody is asked for a passphrase"):
            load_identity(path)
        with pytest.raises((ssl.SSLError, OSError, ValueError)):  # nor where OpenSSL finds one that this misses
            tls._context(path, certificates, ssl.PROTOCOL_TLS_CLIENT)


def test_an_authority_whose_key_has_a_passphrase_is_refused_in_one_sentence(authority):
    path = authority / pki.AUTHORITY_KEY
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    hidden = serialization.BestAvailableEncryption(b"secret")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden))
    with pytest.raises(StateError, match="cannot be read"):
        pki.issue(authority, "one")


def test_an_authority_that_was_killed_between_its_two_files_is_completed(authority):
    certificate, key = authority / pki.AUTHORITY_CERTIFICATE, (authority / pki.AUTHORITY_KEY).read_bytes()
    certificate.unlink()
    assert pki.make_authority(authority) == certificate
    assert (authority / pki.AUTHORITY_KEY).read_bytes() == key
    pki.issue(authority, "one")
    certificate.unlink()
    with pytest.raises(UsageError, match="already"):
        pki.make_authority(authority)  # what was issued knows the certificate that is gone
    assert not certificate.exists()


def test_an_authority_is_made_once_and_issues_only_names(authority, tmp_path):
    with pytest.raises(UsageError, match="already"):
        pki.make_authority(authority)
    with pytest.raises(UsageError, match="is no name for a machine"):
        pki.issue(authority, "../x")
    with pytest.raises(UsageError, match="pki init"):
        pki.issue(tmp_path / "nothing", "one")


def test_an_identity_is_valid_no_longer_than_its_authority(authority):
    state = load_identity(pki.issue(authority, "one", 36500)).state
    assert state.own.ends == state.authority.ends == state.ends
    assert load_identity(pki.issue(authority, "two", 5)).state.own.ends < state.ends


def test_an_authority_that_has_expired_issues_nothing(authority, monkeypatch):
    monkeypatch.setattr(pki, "AUTHORITY_DAYS", -0.02)  # it began an hour ago
    pki.make_authority(authority.parent / "old")
    with pytest.raises(UsageError, match=r"expired at .* pki renew"):
        pki.issue(authority.parent / "old", "one")
    assert not (authority.parent / "old" / "one.identity").exists()


def test_one_identity_on_both_machines_is_refused_by_either_side(tmp_path, authority):
    path = pki.issue(authority, "one")
    ours, theirs = (secure(path, tmp_path / name) for name in ("ours", "theirs"))
    near, far = meet(ours.client, theirs.server)
    assert isinstance(near, PeerError) and "the same identity as this machine, one" in str(near)
    assert isinstance(far, PeerError)


def test_an_identity_is_replaced_on_demand_only(authority):
    path = pki.issue(authority, "one")
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"is there already.*--replace"):
        pki.issue(authority, "one")
    assert path.read_bytes() == before
    assert pki.issue(authority, "one", replace=True) == path and path.read_bytes() != before


def accepted(server: Secure, client: Secure) -> str:
    """Why the server turns the client away; empty when it accepts, and remembers it."""
    _, far = meet(client.client, server.server)
    if isinstance(far, TlsSocket):
        server.remember(far)
        return ""
    return str(far)


def test_the_key_is_pinned_and_not_the_name_alone(tmp_path, authority):
    server = secure(pki.issue(authority, "secondary"), tmp_path / "s")
    first = pki.issue(authority, "primary")
    assert accepted(server, secure(first, tmp_path / "a")) == ""
    assert (tmp_path / "s" / "peer.key").read_text().startswith("sha256:")
    first.unlink()
    anew = pki.issue(authority, "primary")
    assert "another key" in accepted(server, secure(anew, tmp_path / "a"))
    again = secure(authority / "secondary.identity", tmp_path / "s")
    assert "--peer primary" in accepted(again, secure(anew, tmp_path / "a")), "the pin is on the disk"
    told = secure(authority / "secondary.identity", tmp_path / "s", "primary")
    assert accepted(told, secure(anew, tmp_path / "a")) == "", "the operator's word"
    assert accepted(secure(authority / "secondary.identity", tmp_path / "s"), secure(anew, tmp_path / "a")) == ""


def test_a_name_in_a_settings_file_does_not_let_another_key_in(tmp_path, authority):
    own, first = pki.issue(authority, "secondary"), pki.issue(authority, "primary")
    assert accepted(secure(own, tmp_path / "s"), secure(first, tmp_path / "a")) == ""
    first.unlink()
    anew = secure(pki.issue(authority, "primary"), tmp_path / "a")
    standing = Secure(load_identity(own), PeerPin(tmp_path / "s", "primary"))
    assert "another key" in accepted(standing, anew), "it is there at each start, long after it was meant"


def test_a_typed_name_lets_one_other_key_in_and_no_second_one(tmp_path, authority):
    server = secure(pki.issue(authority, "secondary"), tmp_path / "s", "primary")
    for turn, expected in enumerate(("", "another key")):
        (authority / "primary.identity").unlink(missing_ok=True)
        why = accepted(server, secure(pki.issue(authority, "primary"), tmp_path / "a"))
        assert expected in why and bool(why) == bool(turn)


def test_a_volume_that_knows_the_name_alone_learns_the_key(tmp_path, authority):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "peer").write_text("primary\n")  # as earlier versions wrote it
    server = secure(pki.issue(authority, "secondary"), tmp_path / "s")
    assert accepted(server, secure(pki.issue(authority, "primary"), tmp_path / "a")) == ""
    assert (tmp_path / "s" / "peer.key").exists()


def test_an_identity_that_is_issued_again_keeps_its_key_so_that_the_other_side_needs_no_change(tmp_path, authority):
    server = secure(pki.issue(authority, "secondary"), tmp_path / "s")
    path = pki.issue(authority, "primary", 1)
    client = secure(path, tmp_path / "a")
    assert accepted(server, client) == ""
    before = client.state.ends
    pki.issue(authority, "primary", 400, replace=True)
    assert client.state.ends == before
    client.reload()
    assert client.state.ends > before + timedelta(days=300) and accepted(server, client) == ""


def test_an_identity_that_cannot_be_read_again_leaves_the_earlier_one_in_use(tmp_path, authority):
    server = secure(pki.issue(authority, "secondary"), tmp_path / "s")
    path = pki.issue(authority, "primary")
    client = secure(path, tmp_path / "a")
    path.write_text("half a copy")
    with pytest.raises(UsageError):
        client.reload()
    assert accepted(server, client) == ""


def test_a_revoked_key_is_accepted_from_nobody_and_the_next_identity_has_another(tmp_path, authority):
    server = secure(pki.issue(authority, "secondary"), tmp_path / "s", "primary")
    client = secure(pki.issue(authority, "primary"), tmp_path / "a")
    _, far = meet(client.client, server.server)
    assert isinstance(far, TlsSocket) and not server.is_revoked(far)
    path, key = pki.revoke_key(authority, "primary")
    pki.revoke_key(authority, "primary")  # twice is once
    assert path.read_text() == f"{key} primary\n"
    server.reload()
    assert server.is_revoked(far), "a connection of before is known to be one of the revoked key"
    assert "was revoked" in accepted(server, client)
    assert accepted(server, secure(pki.issue(authority, "primary", replace=True), tmp_path / "a")) == "", (
        "a new key was made"
    )


@pytest.mark.parametrize("before", ["# of last year", f"sha256:{'0' * 64} old", "# of last year\n", ""])
def test_a_key_is_revoked_also_behind_a_last_line_without_an_end(authority: Path, before: str) -> None:
    path = pki.issue(authority, "stolen")
    (authority / "revoked").write_text(before)
    listed, key = pki.revoke_key(authority, "stolen")
    assert key in revoked_beside(path)
    assert [line for line in listed.read_text().splitlines() if line] == [
        line for line in (before.rstrip("\n"), f"{key} stolen") if line
    ]


@pytest.mark.parametrize("line", ["primary", "sha256:12", "sha256:" + "G" * 64])
def test_a_list_of_revoked_keys_that_cannot_be_understood_is_named(authority, line):
    path = pki.issue(authority, "one")
    (authority / "revoked").write_text(f"# of last year\n\n{line}\n")
    with pytest.raises(UsageError, match="line 3 of"):
        load_identity(path)


def test_a_name_without_an_identity_to_revoke_is_one_sentence_with_the_names_that_there_are(authority, tmp_path):
    with pytest.raises(UsageError, match=r"has no identity of 'nobody' .*: name the folder in which"):
        pki.revoke_key(authority, "nobody")
    for number in range(12):
        pki.issue(authority, f"m{number:02}")
    with pytest.raises(UsageError, match=r"has no identity of 'nobody' .*: name one of m00, .*m09 and 2 more$"):
        pki.revoke_key(authority, "nobody")
    with pytest.raises(UsageError, match="is no name for a machine"):
        pki.revoke_key(authority, "../pki/m00")
    (authority / "m00.identity").write_text("half a copy")
    with pytest.raises(UsageError, match=r"m00.identity is no identity: put back"):
        pki.revoke_key(authority, "m00")
    assert not (authority / "revoked").exists()


NAMES = st.text(max_size=70) | st.text("ab.-_/9", max_size=70) | st.sampled_from(["authority", "revoked", ".", ".."])


@settings(max_examples=60, deadline=None)
@given(NAMES)
def test_any_name_gives_one_file_or_one_sentence(name):
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "pki"
        pki.make_authority(folder)
        before = sorted(Path(made).rglob("*"))
        try:
            path = pki.issue(folder, name)
        except UsageError as error:
            assert str(error).isprintable() and "name for a machine" in str(error)
            assert sorted(Path(made).rglob("*")) == before
            with pytest.raises(UsageError, match="name for a machine"):
                pki.revoke_key(folder, name)
        else:
            assert sorted(Path(made).rglob("*")) == sorted([*before, path]) and path.parent == folder
            assert load_identity(path).state.own.ends
            pki.revoke_key(folder, name)
            assert sorted(Path(made).rglob("*")) == sorted([*before, path, folder / "revoked"])


def test_an_identity_that_another_user_could_exchange_is_refused(authority):
    path = pki.issue(authority, "one")
    os.chown(path, 65534, 65534)
    with pytest.raises(UsageError, match="65534"):
        load_identity(path)


@pytest.mark.parametrize("name", ["one.identity", "revoked"])
def test_a_pipe_in_the_place_of_an_identity_or_of_the_list_holds_nobody_up(authority, name):
    path = pki.issue(authority, "one")
    planted = authority / name
    planted.unlink(missing_ok=True)
    os.mkfifo(planted)
    assert planted in (path, path.with_name("revoked"))
    with pytest.raises(UsageError, match="cannot be read"):
        load_identity(path)


def test_a_list_of_revoked_keys_that_another_user_wrote_is_refused(authority):
    path = pki.issue(authority, "one")
    (authority / "revoked").write_text("")
    assert not load_identity(path).revoked
    os.chown(authority / "revoked", 65534, 65534)
    with pytest.raises(UsageError, match="not safe"):
        load_identity(path)


def test_in_a_folder_that_another_user_may_write_to_no_authority_is_made_or_used(tmp_path, authority):
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    authority.chmod(0o777)
    for made in (
        lambda: pki.make_authority(loose),
        lambda: pki.issue(authority, "x"),
        lambda: pki.revoke_key(authority, "x"),
    ):
        with pytest.raises(UsageError, match="not safe"):
            made()
    assert not list(loose.iterdir()) and not (authority / "x.identity").exists()
