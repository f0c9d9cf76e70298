"""A controller in a container, which has process numbers of its own, captures the data of writes as any other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pydbt.core.units import MIB
from pydbt.kernel.capture import Capture
from tests.lab.disks import loop_device
from tests.lab.programs import ROOT
from tests.lab.tracking import new_pin_dir

_ATTACH = """
import sys
from pathlib import Path
from pydbt.kernel.capture import Capture
from tests.lab.disks import Device
from tests.lab.tracking import PAYLOAD, spec_of
Capture.attach(spec_of(Device(Path(sys.argv[1]))), PAYLOAD, Path(sys.argv[2])).close()
"""


def test_data_is_captured_by_a_controller_with_process_numbers_of_its_own(tmp_path: Path) -> None:
    with loop_device(tmp_path, 8 * MIB) as device:
        pin_dir = new_pin_dir()
        try:
            done = subprocess.run(
                ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", sys.executable, "-c",
                 _ATTACH, device.path, pin_dir],
                cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        finally:
            Capture.remove_pins(pin_dir)
