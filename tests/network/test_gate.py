"""The gate over a real connection: whose answer counts, and what silence means; old and new versions in both orders."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from pydbt.controller.former_secondary import FORMER_SOCKET_NAME
from pydbt.controller.options import SecondaryOptions
from pydbt.controller.primary.gate import GateOptions, ask_gate, gate_report
from pydbt.controller.primary.handshake import Refused, shake_hands
from pydbt.controller.roles import demote
from pydbt.controller.secondary import promoted
from pydbt.controller.secondary.promoted import answering, serve_promoted
from pydbt.core.configured.on_unreachable import OnUnreachable
from pydbt.core.errors import UsageError
from pydbt.core.primary.gate import GateOutcome, GateVerdict
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.generations import Generations
from pydbt.core.protocol.peer_identity import Machine
from pydbt.core.protocol.role import Role
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.network.address import format_address
from pydbt.network.certificates import key_of
from pydbt.network.connection import FramedConnection
from pydbt.network.listen import listen
from pydbt.network.tls import Secure, load_identity
from pydbt.store.peer_pin import PeerPin, Unpinned
from pydbt.store.replica_state import load_record, save_record
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.volume_state import VolumeState, load_state, save_state
from tests.lab.disks import image
from tests.lab.identities import make_identities
from tests.lab.patience import until
from tests.lab.programs import free_port

VOLUME, REPLICA, SIZE = "ab" * 16, "cd" * 16, 1 << 20
PROMOTED = ReplicaRecord(
    replica=REPLICA, target="t", segment_bytes=1 << 20, volume=VOLUME, size_bytes=SIZE, block_bytes=4096, consistent=True,
    epoch=7, sequence=10, generations=Generations(6, (), (5, 4)), promoted="2026-01-02T16:18:58+00:00",
)  # fmt: skip
ROLE = Role("promoted", PROMOTED.promoted, REPLICA, (), Generations(6), 7, 10)
AT_ONCE, REFUSE = OnUnreachable.parse("mount"), OnUnreachable.parse("refuse")


class Sides:
    """An old primary and what there is at the addresses of its secondaries, over sockets of this machine, or over TLS."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        self.state = folder / "alpha"
        self.state.mkdir()
        self.addresses: list[tuple[str, int]] = []
        self.options = GateOptions(self.state)
        self.questions: list[f.Hello] = []

    def secondary(self, *, tcp: bool = False, replica: str = REPLICA) -> tuple[str, int]:
        """One more on record, with nobody there."""
        number = len(self.addresses) + 1
        address = ("127.0.0.1", free_port()) if tcp else (f"unix:{self.folder}/{number}.sock", 0)
        self.addresses.append(address)
        records = tuple(
            SecondaryRecord(
                slot, format_address(*at), SyncPhase.REPLICATING, replica, generations=Generations(5, (), (4,))
            )
            for slot, at in enumerate(self.addresses, start=1)
        )
        save_state(
            self.state, VolumeState(VOLUME, SIZE, 4096, "/dev/x", {}, records, generations=Generations(5, (), (4,)))
        )
        self.options = replace(self.options, secondaries=tuple(self.addresses), insecure=tcp)
        return address

    def promoted(
        self, address: tuple[str, int], record: ReplicaRecord = PROMOTED, secure: Secure | None = None
    ) -> None:
        """From now on a side that was promoted answers there."""
        connections = answering(listen(*address), lambda: record, secure)
        self._stack.callback(connections.stop)

    def says(self, address: tuple[str, int], answer: Callable[[f.Hello], f.Frame]) -> None:
        """From now on a program of another version answers there, or something else entirely."""
        listener = listen(*address)
        self._stack.callback(listener.close)

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                connection = FramedConnection(sock)
                hello = connection.recv_frame()
                assert isinstance(hello, f.Hello)
                self.questions.append(hello)
                connection.send_frames([answer(hello)])
                connection.finish()

        threading.Thread(target=serve, daemon=True).start()

    def ask(self, policy: OnUnreachable = AT_ONCE, pauses: Callable[[float], None] = lambda _: None) -> GateVerdict:
        """With a clock that goes on by a second for each pause."""
        clock = [0.0]

        def sleep(seconds: float) -> None:
            clock[0] += seconds
            pauses(clock[0])

        return ask_gate(self.options, policy, now=lambda: clock[0], sleep=sleep)


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    with ExitStack() as stack:
        yield Sides(tmp_path, stack)


def welcome(hello: f.Hello) -> f.Welcome:
    return f.Welcome(VOLUME, "consistent", 7, 10, False, SIZE, False, REPLICA, generations=Generations(5, (), (4,)))


def test_a_promoted_side_shuts_the_gate_and_the_status_has_it(sides: Sides) -> None:
    address = sides.secondary()
    sides.promoted(address)
    for policy in (AT_ONCE, REFUSE, OnUnreachable(60)):
        verdict = sides.ask(policy)
        assert verdict.outcome is GateOutcome.SHUT and "promoted at 2026-01-02 16:18:58 UTC" in verdict.words
    report = gate_report(sides.state)
    assert report is not None and (report.outcome, report.words) == ("shut", verdict.words)


def test_one_promoted_secondary_of_several_shuts_the_gate_although_another_is_silent(sides: Sides) -> None:
    sides.secondary()
    sides.says(sides.secondary(), welcome)
    sides.promoted(sides.secondary())
    assert sides.ask(OnUnreachable(60)).outcome is GateOutcome.SHUT


def test_silence_is_answered_as_was_chosen(sides: Sides) -> None:
    sides.secondary()
    pauses: list[float] = []
    assert sides.ask(REFUSE, pauses.append).outcome is GateOutcome.SILENT and not pauses
    assert sides.ask(AT_ONCE, pauses.append).outcome is GateOutcome.UNHEARD and not pauses
    verdict = sides.ask(OnUnreachable(5), pauses.append)
    assert verdict.outcome is GateOutcome.UNHEARD and pauses == [1, 2, 3, 4, 5]
    assert "cannot be reached" in verdict.words


def test_a_secondary_that_is_promoted_while_the_gate_waits_shuts_the_gate(sides: Sides) -> None:
    address = sides.secondary()
    verdict = sides.ask(OnUnreachable(60), lambda at: sides.promoted(address) if at == 3 else None)
    assert verdict.outcome is GateOutcome.SHUT


def test_a_secondary_of_an_earlier_version_is_asked_by_a_greeting_that_it_knows(sides: Sides) -> None:
    sides.says(sides.secondary(), welcome)
    assert sides.ask(REFUSE).outcome is GateOutcome.OPEN
    (question,) = sides.questions
    assert question.volume == VOLUME and question.generations == Generations(5, (), (4,)) and question.protocol == 3


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("superseded", GateOutcome.SHUT),
        ("newer", GateOutcome.SHUT),
        ("target-error", GateOutcome.SILENT),
        ("restarting", GateOutcome.SILENT),
        ("other-volume", GateOutcome.SILENT),
    ],
)
def test_the_refusal_code_of_an_earlier_version_decides_the_gate(sides: Sides, code: str, outcome: GateOutcome) -> None:
    sides.says(sides.secondary(), lambda _: f.Refuse(code, "its words"))
    assert sides.ask(REFUSE).outcome is outcome


def test_a_primary_of_an_earlier_version_is_told_by_a_promoted_side_in_words_that_it_knows(sides: Sides) -> None:
    address = sides.secondary()
    sides.promoted(address)
    hello = f.Hello(VOLUME, SIZE, 4096, 7, generations=Generations(5, (), (4,)))
    with pytest.raises(Refused, match="was promoted at") as refused:
        shake_hands(*address, hello)
    assert refused.value.code == f.SUPERSEDED


@pytest.mark.parametrize(
    "answer", [lambda _: replace(ROLE, replica="77" * 16), lambda hello: replace(welcome(hello), replica="77" * 16)]
)
def test_the_answer_of_a_replica_of_another_name_does_not_count(
    sides: Sides, answer: Callable[[f.Hello], f.Frame]
) -> None:
    sides.says(sides.secondary(), answer)
    assert sides.ask(REFUSE).outcome is GateOutcome.SILENT


def test_a_program_that_is_no_secondary_counts_as_silence(sides: Sides) -> None:
    host, port = sides.secondary(tcp=True)
    web = socket.create_server((host, port))

    def serve() -> None:
        sock, _ = web.accept()
        sock.recv(4096)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        sock.close()

    with web:
        threading.Thread(target=serve, daemon=True).start()
        verdict = sides.ask(REFUSE)
    assert verdict.outcome is GateOutcome.SILENT and "is no pydbt secondary without TLS" in verdict.words


def test_a_machine_that_does_not_prove_to_be_the_secondary_counts_as_silence(sides: Sides, tmp_path: Path) -> None:
    alpha, beta, gamma = make_identities(tmp_path / "pki", "alpha", "beta", "gamma")
    (stranger,) = make_identities(tmp_path / "other", "beta")
    address = sides.secondary(tcp=True)
    sides.options = replace(sides.options, identity=alpha, insecure=False)
    pinned = Secure(load_identity(beta), Unpinned(None))
    PeerPin(sides.state, "beta").remember(_machine_of(beta))
    for wrong in (stranger, gamma):
        with ExitStack() as stack:
            secure = Secure(load_identity(wrong), Unpinned(None))
            stack.callback(answering(listen(*address), lambda: PROMOTED, secure).stop)
            assert sides.ask(REFUSE).outcome is GateOutcome.SILENT, wrong
            assert sides.ask(AT_ONCE).outcome is GateOutcome.UNHEARD, wrong
    sides.promoted(address, secure=pinned)
    assert sides.ask(REFUSE).outcome is GateOutcome.SHUT
    gone = replace(sides.options, identity=tmp_path / "missing.identity")
    with pytest.raises(UsageError, match="cannot be read"):
        ask_gate(gone, AT_ONCE)


def _machine_of(identity: Path) -> Machine:
    return Machine("beta", key_of(load_identity(identity).certificate))


def test_a_volume_that_was_never_replicated_needs_nobody(sides: Sides) -> None:
    save_state(sides.state, VolumeState(VOLUME, SIZE, 4096, "/dev/x", {}, (), generations=Generations(5, (), (4,))))
    assert sides.ask(REFUSE).outcome is GateOutcome.OPEN
    assert gate_report(sides.state) is None


def test_a_side_that_was_promoted_and_has_no_secondary_yet_needs_nobody(sides: Sides) -> None:
    save_record(sides.state, PROMOTED)
    assert sides.ask(REFUSE).outcome is GateOutcome.OPEN


@pytest.mark.parametrize("missing", [False, True])
def test_a_volume_without_its_state_is_silence_because_the_state_may_not_be_mounted(
    sides: Sides, missing: bool
) -> None:
    """Whether it is new, or its state lies on a file system that is not there yet, nobody can tell."""
    sides.options = replace(sides.options, state_dir=sides.folder / "none") if missing else sides.options
    assert sides.ask(REFUSE).outcome is GateOutcome.SILENT
    assert sides.ask(AT_ONCE).outcome is GateOutcome.UNHEARD
    pauses: list[float] = []
    verdict = sides.ask(OnUnreachable(2), pauses.append)
    assert verdict.outcome is GateOutcome.UNHEARD and pauses == [1, 2]
    assert str(sides.options.state_dir) in verdict.words and "no-gate = true" in verdict.words
    report = gate_report(sides.options.state_dir)
    assert (report is None) is missing and (missing or (report and report.outcome == "unheard"))


def test_a_state_that_is_mounted_while_the_gate_waits_tells_whom_to_ask(sides: Sides) -> None:
    sides.promoted(sides.secondary())
    there, sides.options = sides.state, replace(sides.options, state_dir=sides.folder / "mounted")
    verdict = sides.ask(OnUnreachable(60), lambda at: there.rename(sides.options.state_dir) if at == 3 else None)
    assert verdict.outcome is GateOutcome.SHUT and not there.exists()


def test_a_side_that_was_demoted_is_not_mounted_and_nobody_is_asked(sides: Sides) -> None:
    sides.says(sides.secondary(), welcome)
    source = image(sides.folder / "source.img", SIZE)
    save_state(sides.state, replace(_state(sides), source_path=str(source)))
    sides.ask()
    assert gate_report(sides.state) is not None
    demote(source, sides.state)
    assert gate_report(sides.state) is None, "what was found before is not that of a replica"
    verdict = sides.ask()
    assert (
        verdict.outcome is GateOutcome.SHUT and "this side is a replica" in verdict.words and len(sides.questions) == 1
    )


def _state(sides: Sides) -> VolumeState:
    state = load_state(sides.state)
    assert state is not None
    return state


def test_an_answer_is_asked_for_again_only_of_those_that_gave_none(sides: Sides) -> None:
    sides.says(sides.secondary(), welcome)
    sides.secondary()
    assert sides.ask(OnUnreachable(3)).outcome is GateOutcome.UNHEARD
    assert len(sides.questions) == 1


def test_the_secondary_of_a_promoted_state_answers_until_it_is_demoted(sides: Sides) -> None:
    """The target is not opened: it is a mounted volume by then."""
    address = sides.secondary()
    state = sides.folder / "beta"
    state.mkdir()
    save_record(state, PROMOTED)
    options = SecondaryOptions(sides.folder / "no-such-target", *address, state)
    ended: list[object] = []
    thread = threading.Thread(target=lambda: ended.append(serve_promoted(options)), daemon=True)
    thread.start()
    until(lambda: sides.ask(AT_ONCE).outcome is GateOutcome.SHUT, "it answers")
    made = {path.name for path in state.iterdir()} - {FORMER_SOCKET_NAME}
    assert load_record(state) == PROMOTED and made == {"replica.json"}
    save_record(state, replace(PROMOTED, promoted=""))
    thread.join(30)
    assert ended == [options], "it is to be a secondary again"
    assert sides.ask(REFUSE).outcome is GateOutcome.SILENT


def test_an_identity_that_cannot_be_read_again_ends_no_listener(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (beta,) = make_identities(tmp_path / "pki", "beta")
    secure = Secure(load_identity(beta), Unpinned(None))
    beta.unlink()
    promoted._reload(secure)
    assert "stays in use" in caplog.text
