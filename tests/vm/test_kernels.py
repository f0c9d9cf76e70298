"""The main job on kernels of other distributions, each under Debian 12's programs.

One machine of each line would do for what the kernel tells; two are what the rest of the tests have.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.kernel_programs import WALKED_AT_MOST
from tests.vm.kernels import LINES
from tests.vm.pair import MIB, Pair, pair
from tests.vm.site import Site, make_volume

# Until its verifier takes the programs that copy data, this line replicates from image to image.
ADDRESSES_ALONE = ("5.15",)
WHOLE = [line for line in LINES if line not in ADDRESSES_ALONE]

pytestmark = pytest.mark.kernels


@pytest.fixture(params=WHOLE)
def machines_of_a_line(request: pytest.FixtureRequest) -> Iterator[tuple[str, Pair]]:
    with pair({"data": 256 * MIB}, line=request.param, compile_there=True) as both:
        yield request.param, both


@pytest.mark.timeout(2400)
def test_a_mounted_volume_under_load_is_replicated_with_no_block_in_doubt(machines_of_a_line, chance):
    line, machines = machines_of_a_line
    site = Site(machines, make_volume(machines.primary, "disk"))
    site.make_filesystem("ext4")
    site.mount()
    site.start_secondary()
    site.start_primary()
    site.until("the first copy is complete", mode="normal")
    assert site.status()["capture"]["kind"] == "payload", site.status()["capture"]
    walked = site.walked_instructions()
    print(f"{line}: the verifier has walked {walked}")
    assert max(walked.values()) <= WALKED_AT_MOST, walked
    site.start_load(chance)
    site.until_steps(40)
    machines.cut_link()
    site.until("the cut is noticed", mode="unsynchronized")
    site.until_steps(20)
    machines.mend_link()
    site.until("in sync again after the cut", mode="normal")
    site.until_steps(40)
    site.stop_load()
    site.unmount()
    site.wait()
    status = site.status()
    print(f"{line}: {machines.primary.run('uname -r').output.strip()}, losses {status['losses']}, {status['audit']}")
    assert not status["tainted"] and status["taints"] == [], status
    assert status["audit"]["verdict"] == "agrees", status
    site.compare(f"on a kernel {line}")
    site.close()
