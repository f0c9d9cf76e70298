"""Bad input: one clear sentence on stderr, an exit code, and nothing left half-done."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.core.protocol import wire
from pydbt.core.protocol.frames import Hello
from pydbt.store.volume_state import load_state
from tests.lab.cluster import cluster
from tests.lab.disks import Device, attach, loop_device, make_filesystem, mounted, partition_of
from tests.lab.identities import socket_address
from tests.lab.patience import run, until
from tests.lab.programs import Outcome, command, free_port

MIB = 1 << 20
SIZE = 32 * MIB
USAGE, MACHINE, BUSY, PEER, DEVICE, STATE = 2, 3, 4, 5, 6, 7
PINS = Path("/sys/fs/bpf/pydbt")


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Device]:
    with loop_device(tmp_path, SIZE) as device:
        yield device


def pins() -> set[str]:
    return set(os.listdir(PINS)) if PINS.exists() else set()


def run_refused(source: object, state: Path, code: int, *words: str, at: str = "127.0.0.1:9", **options) -> Outcome:
    """``controller run`` refuses, and neither its state directory nor a pin is left of it."""
    existed = state.exists()
    extra = options.pop("extra", ("--insecure",))
    done = command("run", source, "--secondary", at, "--state", state, "--no-wait", *extra, **options)
    done.refused(code, *words)
    assert state.exists() == existed, "a state directory is left"
    return done


def secondary_refused(target: object, state: Path, code: int, *words: str, **options) -> None:
    existed = state.exists()
    extra = options.pop("extra", ())
    at = options.pop("at", socket_address())
    command("secondary", target, "--listen", at, "--state", state, *extra, **options).refused(code, *words)
    assert state.exists() == existed, "a state directory is left"


def in_mounts(script: str) -> list[str]:
    """A prefix that runs the program in mounts of its own, changed by a shell script."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{script} && exec "$@"', "sh"]


# --- the machine ------------------------------------------------------------------------------------------
def test_without_root_both_commands_are_refused(tmp_path, source):
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    tmp_path.chmod(0o755)
    run_refused(source.path, tmp_path / "state", MACHINE, "root", prefix=nobody)
    secondary_refused(source.path, tmp_path / "state", MACHINE, "root", prefix=nobody)
    # An image file needs no root, but a folder that this user may write to.
    secondary_refused(tmp_path / "image", tmp_path / "state", USAGE, "denied", prefix=nobody, extra=("--create", "1M"))


MACHINE_LACKS = {
    "no BTF": ("mount -t tmpfs none /sys/kernel/btf", "BTF"),
    "no headers": (
        "mount -t tmpfs none /usr/src && mount -t tmpfs none /lib/modules && mount -t tmpfs none /var/cache",
        "linux-headers",
    ),
    "no bpffs": ("umount /sys/fs/bpf", "/sys/fs/bpf"),
}


@pytest.mark.parametrize("lacking", MACHINE_LACKS)
def test_on_a_machine_without_btf_headers_or_bpffs_run_is_refused(tmp_path, source, lacking):
    script, word = MACHINE_LACKS[lacking]
    if lacking == "no headers" and Path("/sys/kernel/kheaders.tar.xz").exists():
        script += " && mount --bind /dev/null /sys/kernel/kheaders.tar.xz"
    with cluster(tmp_path / "c", source) as both:
        both.start_secondary()
        before = pins()
        run_refused(source.path, tmp_path / "state", MACHINE, word, at=both.address, prefix=in_mounts(script))
        assert not {name for name in pins() - before if list(tmp_path.glob(f"**/*{name}*"))}


# --- SOURCE -----------------------------------------------------------------------------------------------
def test_a_source_that_is_no_block_device_is_refused(tmp_path, source):
    state = tmp_path / "state"
    (tmp_path / "file").write_bytes(bytes(MIB))
    run_refused(tmp_path / "none", state, USAGE, "none", "does not exist")
    run_refused(tmp_path / "file", state, USAGE, "not a block device")
    run_refused(tmp_path, state, USAGE, "not a block device")
    run_refused("/dev/null", state, USAGE, "not a block device")


def test_a_state_directory_on_the_source_is_refused(tmp_path, source):
    make_filesystem("ext4", source.path)
    with mounted(source, tmp_path / "mnt") as folder:
        run_refused(source.path, folder / "state", USAGE, "state", "another disk")
        run_refused(source.path, folder, USAGE, "state", "another disk")
        assert os.listdir(folder) == ["lost+found"]


def test_a_whole_disk_whose_partition_is_the_target_is_refused_and_the_other_way_round(tmp_path):
    with loop_device(tmp_path, SIZE, partitions=True) as disk, partition_of(disk, 1, 2048, 32768) as partition:
        for name, source, target in (("c", disk, partition), ("d", partition, disk)):
            with cluster(tmp_path / name, source, target=target.path) as both:
                both.start_secondary()
                run_refused(source.path, tmp_path / "state", USAGE, str(target.path), at=both.address)


def test_a_second_controller_for_the_same_volume_is_refused(tmp_path, source):
    with cluster(tmp_path / "c", source) as both:
        both.start()
        state = load_state(both.primary_state)
        assert state is not None
        run_refused(source.path, tmp_path / "other", BUSY, "in use", at=both.address)
        run_refused(source.path, both.primary_state, BUSY, "in use", at=both.address)
        assert state.uuid.hex in pins(), "the running controller's programs are gone"
        both.wait()


def test_a_source_that_vanishes_while_it_is_replicated_ends_the_controller_with_one_sentence(tmp_path):
    image = tmp_path / "vanishing.img"
    image.write_bytes(bytes(SIZE))
    path = attach(image).path
    with cluster(tmp_path / "c", Device(path)) as both:
        try:
            both.start()
            both.wait()
        finally:
            run("losetup", "--detach", path)
        # The controller holds the device open, so the kernel lets go of it only at its end.
        run("truncate", "--size", "0", image)
        run("losetup", "--set-capacity", path, check=False)
        assert both.primary.wait() == DEVICE
        last = both.primary.words().strip().splitlines()[-1]
        assert last.startswith("controller: ") and "Traceback" not in both.primary.words()


@pytest.mark.parametrize("change", [MIB, -MIB])
def test_a_source_that_is_resized_while_it_is_replicated_ends_the_controller_with_one_sentence(tmp_path, change):
    image = tmp_path / "sized.img"
    image.write_bytes(bytes(SIZE))
    path = attach(image).path
    try:
        with cluster(tmp_path / "c", Device(path)) as both:
            both.start()
            both.wait()
            os.truncate(image, SIZE + change)
            run("losetup", "--set-capacity", path)
            assert both.primary.wait() == DEVICE
            assert "resized" in both.primary.words().strip().splitlines()[-1]
            assert "Traceback" not in both.primary.words()
            command("run", path, "--secondary", both.address, "--state", both.primary_state).refused(USAGE, str(SIZE))
    finally:
        run("losetup", "--detach", path, check=False)


# --- TARGET -----------------------------------------------------------------------------------------------
def test_a_target_that_is_missing_or_in_use_is_refused(tmp_path, source):
    state = tmp_path / "state"
    secondary_refused(tmp_path / "none", state, USAGE, "does not exist", "--create")
    secondary_refused(tmp_path, state, USAGE, "neither a block device nor an image file")
    make_filesystem("ext4", source.path)
    with mounted(source, tmp_path / "mnt") as folder:
        secondary_refused(source.path, state, BUSY, "mounted", str(folder))
    with open(source.path, "rb"):
        descriptor = os.open(source.path, os.O_RDWR | os.O_EXCL)
        try:
            secondary_refused(source.path, state, BUSY, "in use")
        finally:
            os.close(descriptor)


def test_a_state_directory_of_the_other_role_is_refused(tmp_path, source):
    """It would be taken for a replica's from then on, and its primary could not start again."""
    with cluster(tmp_path / "c", source) as both:
        both.start()
        both.wait()
        kept = {path.name for path in both.primary_state.iterdir()}
        image = ("--create", "32M")
        secondary_refused(tmp_path / "image", both.primary_state, USAGE, "that of a primary", extra=image)
        assert both.primary.alive and {path.name for path in both.primary_state.iterdir()} <= kept
        assert both.primary.terminate() == 0
        secondary_refused(tmp_path / "image", both.primary_state, USAGE, "that of a primary", extra=image)
        assert not (tmp_path / "image").exists()
        both.start_primary()
        both.wait()
    (tmp_path / "empty").mkdir()
    for state in (tmp_path / "none", tmp_path / "empty"):
        secondary_refused(both.target, state, USAGE, "holds no replica", extra=("--replay-only",))
    command("promote", both.target, "--state", tmp_path / "empty").refused(USAGE, "holds no replica")
    assert not list((tmp_path / "empty").iterdir())


def test_an_image_or_a_state_that_cannot_be_made_leaves_neither(tmp_path):
    secondary_refused(tmp_path / "image", tmp_path / "state", USAGE, "cannot be made", extra=("--create", "8191P"))
    assert not (tmp_path / "image").exists()
    disk = tmp_path / "disk"
    disk.mkdir()
    full = f"mount -t tmpfs -o size=32m none {disk} && (dd if=/dev/zero of={disk}/fill bs=4k 2> {tmp_path}/dd || true)"
    secondary_refused(
        tmp_path / "image", disk / "state", STATE, "No space left",
        extra=("--create", "1M", "--journal-size", "16M"), prefix=in_mounts(full),
    )  # fmt: skip
    assert not (tmp_path / "image").exists()


def test_a_target_smaller_than_the_source_is_refused(tmp_path, source):
    small = tmp_path / "small.img"
    small.write_bytes(bytes(SIZE - 4096))
    with cluster(tmp_path / "c", source, target=small) as both:
        both.start_secondary()
        run_refused(source.path, tmp_path / "state", PEER, str(SIZE - 4096), str(SIZE), at=both.address)
        assert small.read_bytes() == bytes(SIZE - 4096)


def test_a_target_that_is_the_source_or_lies_on_it_is_refused(tmp_path, source):
    with cluster(tmp_path / "c", source, target=source.path) as both:
        both.start_secondary()
        run_refused(source.path, tmp_path / "state", USAGE, "SOURCE itself", at=both.address)
    make_filesystem("ext4", source.path)
    with mounted(source, tmp_path / "mnt") as folder:
        image = folder / "replica.img"
        image.touch()
        os.truncate(image, SIZE)
        with cluster(tmp_path / "d", source, target=image) as both:
            both.start_secondary()
            run_refused(source.path, tmp_path / "state", USAGE, "lies on SOURCE", at=both.address)


@pytest.mark.parametrize("host", ["192.0.2.1", "127.0.0.1", "[::1]", "localhost", "0.0.0.0"])
def test_plain_tcp_requires_insecure_on_loopback_too(tmp_path, source, host):
    run_refused(source.path, tmp_path / "state", USAGE, "--insecure", "unix:", at=f"{host}:7000", extra=())
    extra = ("--create", "1M")
    secondary_refused(tmp_path / "image", tmp_path / "state", USAGE, "--insecure", extra=extra, at=f"{host}:7000")
    assert not (tmp_path / "image").exists()


# --- the network ------------------------------------------------------------------------------------------
def test_a_port_in_use_is_refused(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        at = f"127.0.0.1:{holder.getsockname()[1]}"
        secondary_refused(
            tmp_path / "image",
            tmp_path / "state",
            BUSY,
            "port",
            "in use",
            extra=("--create", "1M", "--insecure"),
            at=at,
        )
    assert not (tmp_path / "image").exists()


def test_an_address_where_nobody_listens_is_named(tmp_path, source):
    at = f"127.0.0.1:{free_port()}"
    run_refused(source.path, tmp_path / "state", PEER, at, "refused", at=at)


@contextlib.contextmanager
def stranger(answer: bytes) -> Iterator[str]:
    """A server that speaks something else."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(10)
                        connection.sendall(answer)
                        with contextlib.suppress(OSError):
                            connection.shutdown(socket.SHUT_WR)
                            while connection.recv(65536):
                                pass

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH_9.2p1\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 100]
)
def test_an_address_where_another_protocol_answers_is_named(tmp_path, source, answer):
    with stranger(answer) as at:
        run_refused(source.path, tmp_path / "state", PEER, at, at=at)


def test_garbage_truncated_and_oversized_frames_hurt_nobody(tmp_path, source, chance):
    hello = wire_hello()
    with cluster(tmp_path / "c", source, plain=True) as both:
        both.start()
        both.wait()
        host, port = both.address.split(":")
        resident = resident_bytes(both.secondary.process.pid)
        for _ in range(150):
            with socket.create_connection((host, int(port)), 10) as connection:
                match chance.randrange(5):
                    case 0:
                        rubbish = chance.randbytes(chance.randrange(1, 4000))
                    case 1:
                        rubbish = hello[: chance.randrange(len(hello))]
                    case 2:
                        at = chance.randrange(len(hello))
                        rubbish = hello[:at] + bytes([hello[at] ^ (1 << chance.randrange(8))]) + hello[at + 1 :]
                    case 3:
                        rubbish = hello[:8] + struct.pack("<I", 0xFFFFFFF0) + hello[12:]
                    case _:
                        rubbish = b""
                with contextlib.suppress(OSError):
                    connection.sendall(rubbish)
        assert both.secondary.alive and both.primary.alive
        both.wait()
        assert "Traceback" not in both.secondary.words()
        assert resident_bytes(both.secondary.process.pid) < resident + 64 * MIB
        both.compare("after garbage")


def wire_hello() -> bytes:
    frame = Hello(volume="ab" * 16, size_bytes=SIZE, block_bytes=4096, epoch=1, sector_bytes=512)
    return b"".join(bytes(part) for part in wire.encode(frame, 0))


def resident_bytes(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_stranger_that_stays_connected_does_not_keep_the_primary_out(tmp_path, source):
    with cluster(tmp_path / "c", source, plain=True) as both:
        both.start_secondary()
        host, port = both.address.split(":")
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(socket.create_connection((host, int(port)), 10))
            both.start_primary()
            both.wait()


def test_asking_for_a_controller_that_does_not_run_is_one_sentence_and_makes_nothing(tmp_path, source):
    (tmp_path / "empty").mkdir()
    for verb in ("status", "wait", "pause", "resume"):
        done = command(verb, source.path)
        assert done.code == 9 and done.errors.count("\n") == 1, done
        command(verb, "--state", tmp_path / "none").refused(USAGE, "no such directory")
    until(lambda: not os.listdir(tmp_path / "empty"), "nothing was made")
