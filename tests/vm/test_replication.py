"""The main job between two machines on Debian's kernel: whatever is cut or killed, in the end both images are identical"""

from __future__ import annotations

import pytest

from tests.lab.kernel_programs import WALKED_AT_MOST
from tests.vm.conftest import long
from tests.vm.site import MOUNT, Site, make_volume, take_volume_down

VOLUMES = (
    ("lvm", "xfs"),
    *long(("disk", "ext4"), ("disk", "xfs"), ("partition", "ext4"), ("partition", "xfs")),
    *long(("linear", "ext4"), ("linear", "xfs"), ("lvm", "ext4"), ("md", "ext4")),
)


@pytest.fixture
def site(machines, request):
    kind, filesystem = request.param
    new = Site(machines, make_volume(machines.primary, kind))
    new.make_filesystem(filesystem)
    try:
        yield new
    finally:
        machines.primary.run("umount /mnt/volume", check=False)
        new.close()
        take_volume_down(machines.primary, kind)
        machines.secondary.run(f"blkdiscard -f {machines.secondary.device('data')}")


@pytest.mark.timeout(2 * 3600)
@pytest.mark.parametrize("site", [("disk", "ext4")], indirect=True, ids="-".join)
def test_a_mounted_volume_is_replicated_and_what_is_written_while_the_link_is_cut_as_well(site):
    """Without a load, for the gate: the programs are loaded into this kernel, and nothing but what is written keeps them busy."""
    site.mount()
    site.start_secondary()
    site.start_primary()
    site.until("the first copy is complete", mode="normal")
    walked = site.walked_instructions()
    assert 1000 < max(walked.values()) <= WALKED_AT_MOST, walked
    written = f"head -c 3000000 /dev/urandom > {MOUNT}/%s && sync -f {MOUNT}/%s"
    site.primary.run(written.replace("%s", "before"))
    site.wait()
    site.machines.cut_link()
    site.until("the cut is noticed", mode="unsynchronized")
    site.primary.run(written.replace("%s", "meanwhile"))
    site.machines.mend_link()
    site.until("in sync again after the cut", mode="normal")
    site.unmount()
    site.wait()
    status = site.status()
    assert not status["tainted"] and status["lost_records"] == 0, status
    assert status["capture"]["kind"] == "payload", status["capture"]
    site.compare("after what was written before the cut, and meanwhile")


@pytest.mark.variant
@pytest.mark.timeout(2 * 3600)
@pytest.mark.parametrize("site", VOLUMES, indirect=True, ids="-".join)
def test_a_mounted_volume_under_load_survives_every_outage_identically(site, chance):
    site.mount()
    site.start_secondary()
    site.start_primary()
    site.until("the first copy is complete", mode="normal")
    # Not before: what was freed by then would not be copied, and free space is compared as well.
    site.start_load(chance)
    site.until_steps(chance.randrange(5, 40))

    site.machines.cut_link()
    site.until("the cut is noticed", mode="unsynchronized")
    site.until_steps(chance.randrange(5, 40))
    site.machines.mend_link()
    site.until("in sync again after the cut", mode="normal")

    site.kill(site.secondary)
    site.until_steps(chance.randrange(5, 40))
    site.start_secondary()
    site.until("in sync again after the secondary was killed", mode="normal")

    site.kill(site.primary)
    site.until_steps(chance.randrange(5, 40))
    site.start_primary()
    site.until("in sync again after the controller was killed", mode="normal")

    site.stop_load()
    site.unmount()
    site.wait()
    status = site.status()
    assert not status["tainted"], status
    assert status["lost_records"] == 0, status
    assert status["audit"]["verdict"] == "agrees", status
    site.compare("after a cut, a killed secondary and a killed controller")
