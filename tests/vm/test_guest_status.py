"""The program that waits for a status inside of a machine: it needs no more than Python, sees a change, and ends in time"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pydbt.controller.control import SOCKET_NAME, ControlServer
from tests.lanes.part import ROOT


def wait_in(place, seconds, **wanted):
    words = (sys.executable, "-S", "-m", "tests.vm.guest_status", place, seconds, json.dumps(wanted))
    return subprocess.run(list(map(str, words)), cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture
def asked(tmp_path):
    """How often a controller was asked whose mode is normal from the third time on."""
    tmp_path.chmod(0o700)
    looks = []

    def status(request, client_gone):
        looks.append(request["command"])
        return {"mode": "normal" if len(looks) > 2 else "resynchronization"}

    with ControlServer(tmp_path / SOCKET_NAME, status):
        yield looks


def test_the_program_waits_until_the_status_has_the_values_and_prints_it(tmp_path, asked):
    done = wait_in(tmp_path, 60, mode="normal")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"mode": "normal"}), done
    assert asked == ["status"] * 3


def test_a_status_that_never_comes_ends_the_wait_with_the_last_status_and_code_1(tmp_path, asked):
    done = wait_in(tmp_path, 0, mode="unsynchronized")
    assert (done.returncode, json.loads(done.stdout)) == (1, {"mode": "resynchronization"}), done


def test_where_nobody_answers_the_status_is_empty(tmp_path):
    done = wait_in(tmp_path, 0, mode="normal")
    assert (done.returncode, json.loads(done.stdout)) == (1, {}), done
