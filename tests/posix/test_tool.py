"""A tool that this program runs is ended by nobody who only wants this program to end."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from pydbt.posix.tool import run_tool
from tests.lab.patience import until

NOTHING = {"PATH": os.environ["PATH"]}


def test_it_is_not_ended_by_the_signals_that_ask_this_program_to_end() -> None:
    text = "for one in INT TERM HUP; do kill -s $one $$; done; read words; echo $words; echo aside >&2; exit 3"
    done = run_tool(["sh", "-c", text], "given\n", NOTHING, 60)
    assert (done.returncode, done.stdout, done.stderr) == (3, "given\n", "aside\n")


def test_this_program_hears_them_as_before() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    run_tool(["true"], "", NOTHING, 60)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    with pytest.raises(FileNotFoundError):
        run_tool(["/nonexistent"], "", NOTHING, 60)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_signal_to_the_group_of_this_program_does_not_reach_it() -> None:
    done = run_tool(["sh", "-c", "ps -o sid= -p $$; echo $$"], "", NOTHING, 60)
    session, number = done.stdout.split()
    assert session == number


@pytest.mark.parametrize("how", ["time", "interrupt"])
def test_one_that_takes_too_long_or_whose_program_is_interrupted_is_killed(how: str, tmp_path: Path) -> None:
    place = tmp_path / "number"
    words = ["sh", "-c", f"echo $$ >{place}; exec sleep 600"]
    if how == "time":
        with pytest.raises(subprocess.TimeoutExpired):
            run_tool(words, "", NOTHING, 1)
    else:

        def interrupt() -> None:
            until(lambda: place.exists() and place.read_text(), "it runs")
            time.sleep(0.5)  # and it is waited for: Popen itself does not take back what it has started
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            run_tool(words, "", NOTHING, 60)
    assert not Path(f"/proc/{place.read_text().strip()}").exists()
