"""A proven machine that is turned away hears why, and strangers hide it from nobody's log."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pydbt.controller import pki
from pydbt.controller.primary.handshake import Refused, shake_hands
from pydbt.core.errors import PeerError
from pydbt.core.protocol.frames import KEYED_DIGESTS, Hello, Refuse
from pydbt.core.protocol.peer_identity import OTHER_KEY, OTHER_NAME, REVOKED
from pydbt.network import tls
from pydbt.network.connection import FramedConnection
from pydbt.network.listen import listen
from pydbt.network.tls import Secure, load_identity
from pydbt.store.peer_pin import PeerPin
from tests.lab.patience import until
from tests.network.scripted import BLOCK, EPOCH, VOLUME, SecondaryProcess

SIZE = 8 << 20
HELLO = Hello(VOLUME, SIZE, BLOCK, EPOCH, features=(KEYED_DIGESTS,))


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    pki.make_authority(tmp_path / "pki")
    for name in ("alpha", "beta", "gamma"):
        pki.issue(tmp_path / "pki", name)
    return tmp_path / "pki"


@pytest.fixture
def secondary(tmp_path: Path, authority: Path) -> Iterator[SecondaryProcess]:
    """beta, which knows alpha."""
    own = tmp_path / "beta"
    own.mkdir(mode=0o700)
    (own / "beta.identity").write_bytes((authority / "beta.identity").read_bytes())
    (own / "beta.identity").chmod(0o600)
    with SecondaryProcess(tmp_path, SIZE, identity=own / "beta.identity") as process:
        connected(process, authority / "alpha.identity").close()
        yield process


def secure(identity: Path, peer: str | None = None) -> Secure:
    return Secure(load_identity(identity), PeerPin(identity.parent / f"state-{identity.stem}", peer, any_key=True))


def connected(secondary: SecondaryProcess, identity: Path, peer: str | None = None) -> FramedConnection:
    connection, _ = shake_hands("127.0.0.1", secondary.port, HELLO, secure(identity, peer))
    return connection


def another_machine(authority: Path) -> Path:
    return authority / "gamma.identity"


def another_key(authority: Path) -> Path:
    (authority / "alpha.identity").unlink()
    return pki.issue(authority, "alpha")


@pytest.mark.parametrize(
    ("comer", "code", "words"),
    [(another_machine, OTHER_NAME, "--peer gamma"), (another_key, OTHER_KEY, "with another key")],
)
def test_a_proven_machine_that_is_turned_away_hears_why_beside_any_number_of_strangers(
    secondary: SecondaryProcess, authority: Path, comer: Callable[[Path], Path], code: str, words: str
) -> None:
    def stranger(text: bytes) -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", secondary.port), 5) as sock:
            sock.sendall(text)
            while sock.recv(4096):
                pass

    for number in range(10):
        stranger((b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(100))[number % 2])
    until(lambda: "turned away 127" in secondary.words(), "a stranger has a line")
    with pytest.raises(Refused, match=words) as refused:
        connected(secondary, comer(authority))
    assert refused.value.code == code
    name = "gamma" if comer is another_machine else "alpha"
    until(lambda: f"turned away {name} (127.0.0.1:" in secondary.words(), "its operator is told by name")
    strangers = [line for line in secondary.words().splitlines() if "which is no primary" in line]
    assert 1 <= len(strangers) <= 2, "one line for each reason"


def revoke_alpha(secondary: SecondaryProcess, authority: Path, tmp_path: Path) -> None:
    path, _ = pki.revoke_key(authority, "alpha")
    (tmp_path / "beta" / "revoked").write_bytes(path.read_bytes())
    assert secondary.process is not None
    secondary.process.send_signal(signal.SIGHUP)


def test_a_revoked_machine_hears_it_on_the_connection_that_it_has_and_on_the_next_one(
    tmp_path: Path, secondary: SecondaryProcess, authority: Path
) -> None:
    connection = connected(secondary, authority / "alpha.identity")
    revoke_alpha(secondary, authority, tmp_path)
    while not isinstance(frame := connection.recv_frame(20), Refuse):
        assert frame is not None, "closed without a word"
    assert frame.code == REVOKED and "'alpha' is revoked" in frame.message
    assert connection.recv_frame(20) is None
    connection.close()
    os.remove(authority / "revoked")  # alpha's own copy of the list: it does not know yet
    with pytest.raises(Refused, match=r"'alpha' is revoked there.*pki issue --replace") as refused:
        connected(secondary, authority / "alpha.identity")
    assert refused.value.code == REVOKED
    until(lambda: "the key of 'alpha' was revoked" in secondary.words(), "and so is the operator of this side")


def test_a_secondary_hears_why_a_primary_turns_it_away(secondary: SecondaryProcess, authority: Path) -> None:
    with pytest.raises(PeerError, match="it proves to be 'beta', and this volume belongs with 'gamma'"):
        connected(secondary, authority / "alpha.identity", peer="gamma")
    words = "turned away alpha (127.0.0.1:"
    until(lambda: words in secondary.words(), "the line of the secondary names the primary")
    (line,) = [line for line in secondary.words().splitlines() if words in line]
    assert "it refuses this machine: it belongs with another machine than 'beta'" in line and "gamma" not in line


def test_a_proven_primary_whose_hello_is_refused_has_a_line_with_its_name(
    secondary: SecondaryProcess, authority: Path
) -> None:
    larger = Hello(VOLUME, 2 * SIZE, BLOCK, EPOCH)
    with pytest.raises(Refused, match="the target has"):
        shake_hands("127.0.0.1", secondary.port, larger, secure(authority / "alpha.identity"))
    until(lambda: "turned away alpha (127.0.0.1:" in secondary.words(), "the refusal of its HELLO names it")


def test_a_machine_whose_identity_expired_is_told_that_and_what_to_do(
    secondary: SecondaryProcess, authority: Path
) -> None:
    pki.issue(authority, "alpha", 1, datetime.now(UTC) - timedelta(days=30), replace=True)
    with pytest.raises(PeerError, match=r"this machine's identity expired at .*pki issue --replace"):
        connected(secondary, authority / "alpha.identity")


def test_a_secondary_that_nobody_can_accept_warns_at_its_start_and_of_each_that_goes_away(
    tmp_path: Path, authority: Path
) -> None:
    pki.issue(authority, "beta", 1, datetime.now(UTC) - timedelta(days=30), replace=True)
    with SecondaryProcess(tmp_path, SIZE, identity=authority / "beta.identity") as process:
        assert "ERROR this machine's identity expired at" in process.words()
        with pytest.raises(PeerError, match="its certificate has expired"):
            connected(process, authority / "alpha.identity")
        until(lambda: "turned away" in process.words(), "the primary has gone away")
        (line,) = [line for line in process.words().splitlines() if "turned away" in line]
        assert "; this machine's identity expired at" in line


def test_an_earlier_secondary_that_closes_without_a_reason_is_an_error_that_names_its_log(
    tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_turn_away", lambda peer, found: None)
    server = Secure(load_identity(authority / "beta.identity"), PeerPin(tmp_path / "s", "alpha"))
    with listen("127.0.0.1", 0) as listener:

        def turn_away() -> None:
            with contextlib.suppress(PeerError):
                server.server(listener.accept()[0])

        thread = threading.Thread(target=turn_away)
        thread.start()
        with pytest.raises(
            PeerError, match=r"closed the connection at once: its log says why|the connection broke"
        ) as failed:
            shake_hands("127.0.0.1", listener.getsockname()[1], HELLO, secure(authority / "gamma.identity"))
        thread.join(20)
    assert not isinstance(failed.value, Refused)
