"""The writers, compared with the output of real programs: a minute of fio, several at once, and PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from pydbt.core.seen.writers.reading import Kind
from pydbt.core.units import MIB
from tests.kernel.test_writers import done, started, watched, within
from tests.lab.patience import run, until
from tests.lab.rounds import ROUNDS

_NOBODY = 65534
_POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path())


def account_of(process: int) -> int:
    """Bytes that this process has dirtied or written past the cache, by the kernel's own account (proc_pid_io(5))."""
    entries = dict(line.split(": ") for line in Path(f"/proc/{process}/io").read_text().splitlines())
    return int(entries["write_bytes"])


def test_after_a_long_time_of_buffered_writes_at_most_a_tenth_is_unknown(tmp_path: Path) -> None:
    """Pages are written out by the kernel while they are dirtied, as on a busy machine; and some of them again and again."""
    seconds = 61 if ROUNDS > 1 else 21
    with watched(tmp_path, "ext4") as volume:
        words = ["fio", "--name=w", "--rw=randwrite", "--bssplit=4k/60:16k/30:64k/10", "--size=96m", "--ioengine=psync"]
        mixed = started(*words, "--thread", f"--filename={volume.folder}/mixed", "--time_based", f"--runtime={seconds}",
                        "--rate=3m", "--fsync=200", "--end_fsync=1")  # fmt: skip
        ended = time.monotonic() + seconds
        while time.monotonic() < ended:
            volume.sums.take(volume.programs.read(), 1.0, out_of_normal=False)
            time.sleep(1)
        truth = 0
        while mixed.poll() is None:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                truth = account_of(mixed.pid)
            time.sleep(0.1)
        assert mixed.wait() == 0
        volume.look()
        answer = volume.check_sums()
        unknown = volume.of(Kind.UNKNOWN) + volume.sums.unseen_bytes
        assert unknown <= answer["captured_bytes"] // 10, answer
        assert truth > seconds * MIB // 2 and within(volume.written(mixed.pid)[0], truth, 0.05), answer


def test_several_direct_writers_at_once_have_what_each_wrote_within_2_percent(tmp_path: Path) -> None:
    with watched(tmp_path, "xfs") as volume:
        sizes = {"a": 16, "b": 24, "c": 40}
        words = [
            "fio",
            "--name=w",
            "--rw=randwrite",
            "--bs=4k",
            "--direct=1",
            "--ioengine=libaio",
            "--iodepth=8",
            "--thread",
        ]
        jobs = {
            name: started(*words, f"--filename={volume.folder}/{name}", f"--size={size}m")
            for name, size in sizes.items()
        }
        assert not any(job.wait(300) for job in jobs.values())
        volume.look()
        answer = volume.check_sums()
        for name, size in sizes.items():
            assert within(volume.written(jobs[name].pid)[1], size * MIB, 0.02), answer
            assert within(volume.of_file(volume.folder / name), size * MIB, 0.02), answer


class Server:
    """PostgreSQL, of user nobody, with its data in a folder; and one session."""

    def __init__(self, folder: Path) -> None:
        assert (_POSTGRES / "initdb").exists(), "PostgreSQL is not installed here: run scripts/setup --tests"
        data, self._place = folder / "data", folder / "sockets"
        for one in (data, self._place):
            one.mkdir(mode=0o700)
            os.chown(one, _NOBODY, _NOBODY)
        as_nobody = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
        run(*as_nobody, _POSTGRES / "initdb", "-D", data, "-U", "nobody", "--auth=trust", "--no-sync")
        self._server = started(
            *as_nobody, _POSTGRES / "postgres", "-D", data, "-k", self._place, "-c", "listen_addresses=",
            "-c", "shared_buffers=8MB", "-c", "autovacuum=off", "-c", "wal_recycle=off", "-c", "max_wal_size=64MB",
        )  # fmt: skip
        ready = [_POSTGRES / "pg_isready", "-q", "-h", self._place]
        until(lambda: subprocess.run(ready, check=False).returncode == 0, "the server is ready")
        words = ["psql", "-h", self._place, "-U", "nobody", "postgres", "-q"]
        self._client = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def processes(self) -> set[int]:
        """It, and its children."""
        number = self._server.pid
        return {number, *map(int, Path(f"/proc/{number}/task/{number}/children").read_text().split())}

    def work(self) -> None:
        assert self._client.stdin is not None and self._client.stdout is not None
        self._client.stdin.write(
            b"create table t(id int primary key, filling text);\n"
            b"insert into t select n, repeat(md5(n::text), 8) from generate_series(1, 60000) n;\n"
            b"update t set filling = md5(filling) || filling where id % 7 = 0; checkpoint; \\echo done\n"
        )
        self._client.stdin.flush()
        assert self._client.stdout.readline().strip() == b"done"

    def end(self) -> None:
        self._client.kill()
        self._client.communicate()
        self._server.terminate()
        self._server.wait(60)


class Library:
    """SQLite, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._program = subprocess.Popen(["sqlite3", folder / "file.db"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def processes(self) -> set[int]:
        return {self._program.pid}

    def work(self) -> None:
        assert self._program.stdin is not None and self._program.stdout is not None
        self._program.stdin.write(
            b"pragma journal_mode=wal; create table t(id integer primary key, filling blob);\n"
            b"insert into t select value, randomblob(300) from generate_series(1, 60000);\n"
            b"update t set filling = randomblob(350) where id % 7 = 0; pragma wal_checkpoint(truncate);\n.print done\n"
        )
        self._program.stdin.flush()
        while self._program.stdout.readline().strip() != b"done":
            assert self._program.poll() is None

    def end(self) -> None:
        self._program.kill()
        self._program.communicate()


DATABASES = {"SQLite": Library, "PostgreSQL": Server}


@pytest.mark.parametrize("name", DATABASES)
def test_a_database_has_what_the_kernel_s_own_account_of_its_processes_tells(name: str) -> None:
    # Not below pytest's folder, which is root's alone: PostgreSQL does not run as root.
    with tempfile.TemporaryDirectory(prefix="pydbt-test-", dir="/var/tmp") as place:
        os.chmod(place, 0o755)
        compare_with_the_account(Path(place), name)


def compare_with_the_account(place: Path, name: str) -> None:
    with watched(place, "ext4") as volume:
        volume.folder.chmod(0o755)
        database = DATABASES[name](volume.folder)
        try:
            volume.look()
            before = {one: account_of(one) for one in database.processes()}
            told_before = volume.written(*before)
            database.work()
            os.sync()
            family = database.processes()
            truth = sum(account_of(one) - before.get(one, 0) for one in family)
            volume.look()
            answer = volume.check_sums()
            told = volume.written(*family)
        finally:
            database.end()
        dirtied, written = (now - then for now, then in zip(told, told_before, strict=True))
        assert truth > 20 * MIB and within(dirtied, truth, 0.05), (truth, answer)
        assert within(written, truth, 0.15), (truth, answer)
        assert volume.of(Kind.UNKNOWN) + volume.sums.unseen_bytes <= answer["captured_bytes"] // 10, answer


def test_a_copy_of_a_tree_of_small_files_is_of_the_process_that_copied_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(2000):
        (source / f"file-{number}").write_bytes(os.urandom(3000))
    with watched(tmp_path / "v", "ext4") as volume:
        copier = done("cp", "-r", source, volume.folder / "copy")
        volume.look()
        answer = volume.check_sums()
        assert within(volume.written(copier)[1], 2000 * 4096, 0.1), answer
