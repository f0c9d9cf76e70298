"""A user of the machine without any rights tries everything beside a running pair: the network, files, sockets, processes, names.

Each attempt is a true one: the same program does what it tries when root runs it, or when the protection is taken away.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.controller.public_status import READING_COMMANDS, public_socket
from pydbt.controller.registry import PINS, RUN_DIR
from pydbt.core.units import MIB
from pydbt.posix.held_device import HoldServer
from pydbt.store.replica_state import load_record
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import image, loop_device
from tests.lab.identities import make_identities
from tests.lab.nobody import NOBODY, attempt, denied, reachable_folder, running
from tests.lab.patience import until
from tests.lab.programs import Controller, Outcome, command, free_port

SIZE = 16 * MIB
MEMBER = 64_990
"""The number of a group that this machine does not have."""


def fill(source: Path) -> None:
    with source.open("r+b") as disk:
        disk.write(os.urandom(2 * MIB))
        os.fsync(disk.fileno())


@pytest.fixture
def reachable() -> Iterator[Path]:
    with reachable_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with reachable_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def pair(place: Path) -> Iterator[Cluster]:
    """In sync, with identities, over a port of the loopback interface, where everybody has a way to everything of it."""
    ours, theirs = make_identities(place / "pki", "alpha", "beta")
    (place / "pki").chmod(0o755)
    options = {"primary_options": ("--identity", ours), "secondary_options": ("--identity", theirs)}
    with loop_device(place, SIZE) as device, cluster(place / "c", device, **options) as both:
        both.replica.address = f"127.0.0.1:{free_port()}"
        fill(device.path)
        both.start()
        both.wait()
        yield both


@pytest.fixture(autouse=True)
def unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "pair" in request.fixturenames:
        both: Cluster = request.getfixturevalue("pair")
        assert both.primary.alive and both.replica.alive
        both.wait()


def port_of(both: Cluster) -> str:
    return both.address.rpartition(":")[2]


def is_harmless(text: str) -> bool:
    """It commands no terminal and forges no line."""
    return all(line.isprintable() for line in text.replace("\t", "").split("\n"))


# --- the network ------------------------------------------------------------------------------------------
GREET = """
from pydbt.core.errors import PydbtError
from pydbt.core.protocol.frames import Hello
from pydbt.network.connect import connect
from pydbt.network.connection import FramedConnection
port, volume, size, block = arguments
connection = FramedConnection(connect("127.0.0.1", int(port)))
try:
    connection.send_frames([Hello(volume, int(size), int(block), 1)])
    print(ascii(connection.recv_frame(20)))
except PydbtError:
    print("nothing")
"""
# In the place of a secondary: it welcomes everybody, and counts what it is sent.
LISTEN = """
import os, socket
from pydbt.core.errors import PydbtError
from pydbt.core.protocol.frames import Hello, Welcome
from pydbt.network.connection import FramedConnection
(place,) = arguments
listener = socket.socket(socket.AF_UNIX if place.startswith("/") else socket.AF_INET)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(place if place.startswith("/") else ("127.0.0.1", int(place)))
if place.startswith("/"):
    os.chmod(place, 0o666)
listener.listen()
print("it listens", flush=True)
while True:
    sock, _ = listener.accept()
    connection, said, taken = FramedConnection(sock), "nothing", 0
    try:
        hello = connection.recv_frame(20)
        if isinstance(hello, Hello):
            said = "hello"
            connection.send_frames([Welcome(None, "inconsistent", 0, 0, False, hello.size_bytes, False, replica="ee" * 16)])
            sock.settimeout(60)
            while taken < 1 << 20 and (data := sock.recv(1 << 20)):
                taken += len(data)
    except (PydbtError, OSError):
        pass
    print(said, taken, flush=True)
    sock.close()
"""


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def problem(both: Cluster) -> str:
    return str((both.status() or {}).get("connection_problem", ""))


def test_behind_an_identity_a_local_user_is_answered_nothing(pair: Cluster) -> None:
    record = load_record(pair.secondary_state)
    assert record is not None and record.volume is not None
    for volume in ("11" * 16, record.volume):
        heard = attempt(GREET, port_of(pair), volume, SIZE, record.block_bytes)
        assert not heard.denied and heard.lines[0] in ("nothing", "None"), heard


def test_over_plain_tcp_a_stranger_hears_codes_alone_and_another_replica_is_sent_nothing(reachable: Path) -> None:
    with loop_device(reachable, SIZE) as device, cluster(reachable / "c", device, plain=True) as both:
        fill(device.path)
        for arguments in (
            ("run", device, "--secondary", both.address, "--state", reachable / "s", "--no-wait"),
            ("secondary", both.target, "--create", SIZE, "--listen", both.address, "--state", reachable / "s"),
        ):
            command(*arguments).refused(2, "--insecure")
        both.start()
        both.wait()
        record = load_record(both.secondary_state)
        assert record is not None and record.volume is not None
        block = record.block_bytes
        asked = (
            ("11" * 16, SIZE, block), (record.volume, SIZE * 4, block), (record.volume, SIZE // 2, block),
            (record.volume, SIZE, block * 2),
        )  # fmt: skip
        heard = [attempt(GREET, port_of(both), *words).lines[0] for words in asked]
        assert heard[0] == "Refuse(code='other-volume', message='', side=None)"
        for line in heard:
            assert re.fullmatch(r"Refuse\(code='[a-z-]+', message='', side=None\)", line), line
        until(lambda: f"holds volume {record.volume}" in both.replica.log.read_text(), "the log has the evidence")
        assert both.primary.alive and (both.status() or {})["connected"]
        in_the_place_of_its_secondary(both)


def in_the_place_of_its_secondary(both: Cluster) -> None:
    """While that restarts. It is sent nothing; with the operator's word, which is the protection taken away, the volume."""
    both.secondary.terminate()
    with running(LISTEN, port_of(both)) as thief:
        assert next_line(thief) == "hello 0"
        until(lambda: "another replica" in problem(both), "it is told")
        assert both.try_wait(3).code != 0
        status = both.status() or {}
        assert not status["connected"] and status["replica_state"] != "up-to-date"
    both.start_secondary()
    both.wait()
    both.compare("after a stranger in its place")
    both.primary.terminate()
    both.primary_options = (*both.primary_options, "--accept-replica")
    with running(LISTEN, port_of(both)) as thief:
        both.start_primary()
        while (said := next_line(thief)).endswith(" 0"):
            assert both.primary.alive
        assert int(said.split()[1]) >= MIB


def test_a_socket_of_this_machine_is_not_for_another_user(reachable: Path) -> None:
    folder = reachable / "open"
    folder.mkdir(mode=0o755)
    with loop_device(reachable, SIZE) as device, cluster(reachable / "c", device) as both:
        both.replica.address = f"unix:{folder}/s"
        fill(device.path)
        both.start()
        both.wait()
        denied(CONNECT, folder / "s")
        (folder / "s").chmod(0o666)  # as if the mode had not kept that user away already
        assert not attempt(CONNECT, folder / "s").denied
        until(lambda: f"user {NOBODY}" in both.replica.log.read_text(), "it is turned away")
        both.secondary.terminate()
        folder.chmod(0o777)  # only this lets that user be there
        with running(LISTEN, folder / "s") as thief:
            assert next_line(thief) == "nothing 0", "not even a greeting"
            until(lambda: f"user {NOBODY}" in problem(both), "it is told")
            assert both.try_wait(3).code != 0
        (folder / "s").unlink()
        with running(LISTEN, folder / "s", user=0) as own:
            assert next_line(own) == "hello 0", "root's process is greeted; it is another replica"
        (folder / "s").unlink()
        folder.chmod(0o755)
        both.start_secondary()
        both.wait()
        both.compare("after another user in its place")


# --- files and folders ------------------------------------------------------------------------------------
OPEN = """
import os
for place in arguments:
    for mode in (os.O_RDONLY, os.O_RDWR):
        try:
            os.close(os.open(place, mode | os.O_NONBLOCK))
            print(place)
        except PermissionError:
            pass
"""
LIST = "import os\nos.listdir(arguments[0])"
MAKE = "import os\nos.mkdir(arguments[0] + '/planted')\nos.rmdir(arguments[0] + '/planted')"
LINK = "import os\nos.symlink('/etc/shadow', arguments[0] + '/planted')\nos.unlink(arguments[0] + '/planted')"
MOVE = "import os\nos.rename(arguments[0], arguments[0] + '-away')\nos.rename(arguments[0] + '-away', arguments[0])"
READ_PIN = """
import os
from pathlib import Path
from pydbt.core.errors import MachineError
from pydbt.kernel import syscalls
try:
    os.close(syscalls.obj_get(Path(arguments[0])))
except MachineError:
    raise PermissionError from None
"""
CONNECT = """
import os, socket, stat
kind = socket.SOCK_SEQPACKET if "hold-" in arguments[0] else socket.SOCK_STREAM
with socket.socket(socket.AF_UNIX, kind) as wire:
    wire.settimeout(20)
    wire.connect(arguments[0])
"""
PLANT = """
import os
kind, place, victim = arguments
{"link": lambda: os.symlink(victim, place), "pipe": lambda: os.mkfifo(place), "folder": lambda: os.mkdir(place)}[kind]()
"""


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def test_nobody_gets_at_a_file_of_a_running_pair(pair: Cluster, place: Path) -> None:
    states = (pair.primary_state, pair.secondary_state)
    mine = [path for path in RUN_DIR.iterdir() if path.is_file() and str(place) in path.read_text(errors="replace")]
    secrets = [*place.glob("pki/*.identity"), place / "pki" / "authority.key"]
    files = [*secrets, pair.target, *mine, *(path for state in states for path in files_in(state))]
    assert len(secrets) == 3 and len(mine) >= 2 and len(files) > 12
    for state in states:
        denied(LIST, state)
    try:
        for state in states:
            state.chmod(0o755)  # as if the directory had not kept that user away already
            for folder in (path for path in state.iterdir() if path.is_dir()):
                folder.chmod(0o755)
        assert attempt(OPEN, *files).lines == []
        assert len(attempt(OPEN, *files, user=0).lines) == 2 * len(files)
        for state in states:
            denied(CONNECT, state / "control.sock")
    finally:
        for state in states:
            for folder in (state, *(path for path in state.iterdir() if path.is_dir())):
                folder.chmod(0o700)
    assert attempt(OPEN, pair.source.path).lines == [], "nor at the device"
    command("secondary", pair.target, "--listen", f"unix:{place}/x", "--state", pair.secondary_state).refused(4)


def test_nobody_makes_or_moves_anything_in_a_folder_of_the_program(pair: Cluster, place: Path) -> None:
    for folder in (pair.primary_state, pair.secondary_state, place / "pki", pair.folder, RUN_DIR):
        denied(MAKE, folder)
        denied(LINK, folder)
    denied(MOVE, pair.secondary_state / "lock")
    denied(MAKE, PINS)
    denied(LIST, PINS)
    pins = PINS / str((load_record(pair.secondary_state) or pytest.fail("no record")).volume)
    denied(LIST, pins)
    denied(READ_PIN, pins / "meta")


def test_a_lock_or_a_hold_is_not_for_another_user(pair: Cluster, reachable: Path) -> None:
    """Whoever may read a file can lock it: the image that an operator made for all to read."""
    server = HoldServer("unprivileged", reachable)
    try:
        denied(CONNECT, reachable / "hold-unprivileged.sock")
    finally:
        server.close()
    pair.target.chmod(0o644)
    pair.secondary.terminate()
    locking = (
        "import fcntl\nfile = open(arguments[0])\nfcntl.flock(file, fcntl.LOCK_EX)\nprint('it is locked', flush=True)\n"
    )
    with running(f"{locking}import time\ntime.sleep(1000)", pair.target):
        pair.start_secondary()
        pair.wait()
    pair.target.chmod(0o600)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_another_user_planted_is_no_state_directory(reachable: Path, kind: str) -> None:
    shared, victim, target = reachable / "shared", reachable / "victim", image(reachable / "t.img", MIB)
    victim.mkdir(mode=0o700)
    shared.mkdir()
    shared.chmod(0o1777)
    options = ("--listen", f"unix:{reachable}/s", "--check")
    assert not attempt(PLANT, kind, shared / "theirs", victim).denied
    for verb in (("secondary", target, *options), ("promote", target), ("down",), ("invalidate", target)):
        done = command(*verb, "--state", shared / "theirs")
        done.refused(2, str(shared / "theirs"))
    assert list(victim.iterdir()) == []
    assert not attempt(PLANT, kind, shared / "ours", victim, user=0).denied
    done = command("secondary", target, *options, "--state", shared / "ours")
    assert (done.code == 0) == (kind != "pipe"), "root's own is used"


def test_what_another_user_planted_is_no_target_and_no_source(reachable: Path) -> None:
    shared, victim = reachable / "shared", image(reachable / "victim", MIB)
    victim.chmod(0o600)
    shared.mkdir()
    shared.chmod(0o1777)
    options = ("--state", reachable / "s", "--check")
    with loop_device(reachable, SIZE) as device:
        for number, (user, code) in enumerate(((NOBODY, 2), (0, 0))):
            target, source = shared / f"t{number}", shared / f"s{number}"
            assert not attempt(PLANT, "link", target, victim, user=user).denied
            assert not attempt(PLANT, "link", source, device, user=user).denied
            for words in (
                ("secondary", target, "--listen", f"unix:{reachable}/l", *options),
                ("run", source, "--secondary", f"unix:{reachable}/none", *options),
            ):
                done = command(*words)
                assert done.code == code, done
                assert code == 0 or "not safe" in done.errors or f"user {NOBODY}" in done.errors
    assert not (reachable / "s").exists()


# --- commands, status, and the dashboard ------------------------------------------------------------------
ASK = """
import json, socket
place, *names = arguments
for name in names:
    with socket.socket(socket.AF_UNIX) as wire:
        wire.connect(place)
        wire.sendall(json.dumps({"command": name}).encode() + b"\\n")
        print(wire.makefile().readline().strip())
"""
PAGE = """
import http.client, socket
place, route, token = arguments
wire = http.client.HTTPConnection("localhost" if place.startswith("/") else place)
if place.startswith("/"):
    wire.sock = socket.socket(socket.AF_UNIX)
    wire.sock.connect(place)
wire.request("GET", route, headers={"Authorization": "Bearer " + token} if token else {})
print(wire.getresponse().status)
"""
CHANGING = (
    "wait", "mark", "transactions", "pause", "resume", "verify", "add", "remove", "down", "stop", "switchover", "promote",
)  # fmt: skip


def test_no_command_of_another_user_reaches_a_controller(pair: Cluster) -> None:
    source, state = pair.source.path, ("--state", pair.primary_state)
    lines: tuple[tuple[object, ...], ...] = (
        *((verb, *state) for verb in ("status", "wait", "pause", "resume", "verify", "switchover", "events", "down")),
        ("mark", "a name", *state), ("secondaries", "remove", pair.address, *state), ("demote", source, *state), ("down", source),
        ("promote", "--force", pair.target, "--state", pair.secondary_state), ("down", "--all"), ("disarm", *state),
        ("invalidate", pair.target, "--state", pair.secondary_state),
    )  # fmt: skip
    before = pair.primary.status()["mode"]
    for line in lines:
        outcome = command(*line, user=NOBODY)
        assert outcome.code in (2, 3, 7) and outcome.errors.startswith("controller: "), (line, outcome)
        assert outcome.errors.count("\n") == 1 and outcome.output == "", (line, outcome)
    assert pair.primary.status()["mode"] == before == "normal"
    for state_dir in (pair.primary_state, pair.secondary_state):
        denied(ASK, state_dir / "control.sock", "status")
    for verb in ("pause", "resume"):
        assert command(verb, *state).code == 0, "root's is carried out"


def test_members_of_the_group_look_and_change_nothing_and_others_do_not_look(reachable: Path) -> None:
    groups = reachable / "group"
    groups.write_text(Path("/etc/group").read_text() + f"pydbt:x:{MEMBER}:\n")
    words = f'mount --bind {groups} /etc/group && exec "$@"'
    prefix = ("unshare", "--mount", "--propagation", "private", "sh", "-c", words, "sh")
    with loop_device(reachable, SIZE) as device, cluster(reachable / "c", device) as both:
        both.prefix = both.replica.prefix = prefix
        both.start()
        both.wait()
        for state_dir, told in ((both.primary_state, '"primary"'), (both.secondary_state, '"secondary"')):
            place = public_socket(state_dir)
            denied(ASK, place, "status")
            (status,) = attempt(ASK, place, "status", groups=[MEMBER]).lines
            assert '"ok": true' in status and told in status
            assert not set(CHANGING) & READING_COMMANDS
            answers = attempt(ASK, place, *CHANGING, groups=[MEMBER]).lines
            assert len(answers) == len(CHANGING)
            assert all("may look, and change nothing" in answer for answer in answers), answers
        assert both.primary.alive and both.replica.alive
        both.wait()
        command("status", user=NOBODY).refused(3, "pydbt")


def test_the_dashboard_is_for_who_has_its_token_or_is_allowed(pair: Cluster, place: Path) -> None:
    token_file, socket_path, port = place / "token", place / "dashboard.sock", free_port()
    options = ("--peers", place / "peers")
    dashboards = [
        Controller(place / "d1.log", ["dashboard", "--listen", f"127.0.0.1:{port}", "--token-file", token_file, *options]),
        Controller(place / "d2.log", ["dashboard", "--listen", f"unix:{socket_path}", *options]),
    ]  # fmt: skip
    try:
        until(lambda: all("serving" in one.words() or "http" in one.words() for one in dashboards), "both serve")
        token, at = token_file.read_text().strip(), f"127.0.0.1:{port}"
        for route in ("/", "/metrics", "/api/overview", "/api/stream"):
            for wrong in ("", "x" * len(token), token[:-1]):
                assert attempt(PAGE, at, route, wrong).lines == ["401"], route
        assert attempt(PAGE, at, "/metrics", token).lines == ["200"], "who was given the token"
        assert attempt(OPEN, token_file).lines == []
        for one in dashboards:
            assert token not in Path(f"/proc/{one.process.pid}/cmdline").read_text()
            denied(f"open('/proc/{one.process.pid}/environ').read()")
        denied(PAGE, socket_path, "/metrics", "")
        assert attempt(PAGE, socket_path, "/metrics", "", user=0).lines == ["200"]
    finally:
        for one in dashboards:
            one.terminate()


# --- processes and names ----------------------------------------------------------------------------------
# Of each process: the ways to look into it that were open, and then the ways to harm it. Last a child of its own.
TOUCH = """
import ctypes, os, resource, signal, subprocess
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long] * 4

def said(outcome):
    if outcome < 0:
        raise OSError(ctypes.get_errno(), "refused")

READ = {
    "environment": lambda pid: open(f"/proc/{pid}/environ", "rb").read(),
    "memory": lambda pid: open(f"/proc/{pid}/mem", "rb").close(),
    "map": lambda pid: open(f"/proc/{pid}/maps").read(),
    "descriptors": lambda pid: os.listdir(f"/proc/{pid}/fd"),
    "folder": lambda pid: os.listdir(f"/proc/{pid}/cwd/"),
    "program": lambda pid: os.readlink(f"/proc/{pid}/exe"),
    "descriptor": lambda pid: said(libc.syscall(438, os.pidfd_open(pid), 0, 0)),  # pidfd_getfd(2)
    "tracing": lambda pid: said(libc.ptrace(0x4206, pid, 0, 0)),  # PTRACE_SEIZE
}
HARM = {
    "limit": lambda pid: resource.prlimit(pid, resource.RLIMIT_NOFILE, (1024, 1024)),
    "priority": lambda pid: os.setpriority(os.PRIO_PROCESS, pid, 19),
    "processors": lambda pid: os.sched_setaffinity(pid, os.sched_getaffinity(pid)),
    "memory": lambda pid: open(f"/proc/{pid}/oom_score_adj", "w").write("1000"),
    "stop": lambda pid: os.kill(pid, signal.SIGSTOP),
    "reading again": lambda pid: os.kill(pid, signal.SIGHUP),
    "end": lambda pid: os.kill(pid, signal.SIGTERM),
    "death": lambda pid: os.kill(pid, signal.SIGKILL),
}

def open_ways(ways, pid):
    found = []
    for name, way in ways.items():
        try:
            way(pid)
            found.append(name)
        except PermissionError:
            pass
    return len(found) == len(ways), found

own = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)
which, *pids = arguments
ways = READ if which == "read" else HARM
for pid in (*map(int, pids), own.pid):
    print(*open_ways(ways, pid))
own.kill()
"""


def test_no_controller_can_be_looked_into_or_harmed(pair: Cluster) -> None:
    controllers = [pair.primary.process.pid, pair.secondary.process.pid]
    for which in ("read", "harm"):
        *theirs, own = attempt(TOUCH, which, *controllers).lines
        assert theirs == ["False []"] * 2, "nothing is open"
        assert own.startswith("True "), f"of a child everything is: {own}"
    for pid in controllers:
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE), "a crash leaves no memory behind"


def test_nor_can_another_process_of_the_user_who_runs_a_secondary(reachable: Path) -> None:
    folder = reachable / "own"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    words = ["secondary", folder / "t.img", "--create", MIB, "--listen", f"unix:{folder}/s"]
    as_nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    theirs = Controller(reachable / "log", words, folder / "state", prefix=as_nobody)
    try:
        until(theirs.answers, "it answers")
        inside, own = attempt(TOUCH, "read", theirs.process.pid).lines
        assert inside == "False []" and own.startswith("True ")
        limits = Path(f"/proc/{theirs.process.pid}/limits").read_text()
        assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
    finally:
        theirs.terminate()


# A name of a process, of its arguments, of a folder and of a mounted file system in a namespace of its own.
NAMES = r"""
import ctypes, os, subprocess
(folder,) = arguments
name = "a\r\nb\x1b[2J\x1b]0;x\x07 normal: in sync \\012"
os.mkdir(os.path.join(folder, name))
os.chdir(os.path.join(folder, name))
open("file " + name, "w").close()
ctypes.CDLL(None).prctl(15, ("\r\n\x1b[2J" + name).encode())
words = 'mount -t tmpfs "$0" . && cd "$PWD" && mkdir "$0" && mount -t tmpfs "$0" "$0" && echo it is there && exec sleep 1000'
own_mounts = [name, "--user", "--map-root-user", "--mount", "sh", "-c", words, name]
subprocess.run(own_mounts, executable="/usr/bin/unshare")
"""


def test_no_name_of_a_process_a_file_or_a_mount_reaches_a_terminal_or_ends_a_command(
    pair: Cluster, reachable: Path
) -> None:
    folder, state = reachable / "names", ("--state", pair.primary_state)
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    with running(NAMES, folder):
        for words in (
            ("status",),
            ("status", pair.source.path),
            ("check", *state),
            ("wait", *state),
            ("events", "--now", *state),
        ):
            outcome = command(*words)
            good(outcome, words)
        assert command("down", *state).code == 0
        pair.primary.wait()
        pair.start_primary()
        pair.wait()
    for log in pair.logs:
        assert is_harmless(log.read_text()), log


def good(outcome: Outcome, words: tuple[object, ...]) -> None:
    """The list of all has also what other tests have left stopped."""
    assert outcome.code == 0 or (words == ("status",) and outcome.code == 9), (words, outcome)
    assert is_harmless(outcome.output + outcome.errors), (words, outcome)
    assert "this is a bug" not in outcome.errors
