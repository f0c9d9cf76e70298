"""The documented way to try it on two machines: ``vagrant up``, ``controller run``, and a file is on the other machine"""

from __future__ import annotations

import subprocess

import pytest

from tests.vm.box import lab_command
from tests.vm.image import PROJECT

# In the lab, where everything that this starts ends with it. The primary's volume is unmounted at the end, so that the
# secondary's, looked at read-only, must have the whole file.
SCRIPT = """
set -eux
vagrant validate
trap 'vagrant destroy -f >/dev/null' EXIT
vagrant up
vagrant ssh primary -c "sudo sh -c '
    dpkg -s pydbt >/dev/null; systemctl is-enabled pydbt@data && exit 1
    head -c 3000000 /dev/urandom >/data/file; sync
    (timeout -s INT 600 controller run >/tmp/run.log 2>&1 &)
    for i in \\$(seq 60); do controller status data 2>/dev/null | grep -q up-to-date && break; sleep 4; done
    head -c 2000000 /dev/urandom >>/data/file; sync
    controller wait data --timeout 120
    cat /tmp/run.log >&2
    echo PRIMARY \\$(sha256sum </data/file)
    umount /data; controller wait data --timeout 60
'"
vagrant ssh secondary -c "sudo sh -c '
    systemctl is-enabled pydbt-secondary@data >&2
    systemctl stop pydbt-secondary@data
    controller secondary data --replay-only >&2
    mount -o ro /dev/pydbt/data /mnt; echo SECONDARY \\$(sha256sum </mnt/file)
'"
"""


@pytest.mark.timeout(2 * 3600)
def test_vagrant_up_then_controller_run_replicates_what_is_written():
    done = subprocess.run(
        lab_command(["bash", "-c", SCRIPT]),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=1700,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    found = dict(line.split()[:2] for line in done.stdout.splitlines() if line.startswith(("PRIMARY", "SECONDARY")))
    assert found["PRIMARY"] == found["SECONDARY"], done.stdout
