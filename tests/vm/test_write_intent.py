"""Write-intent of dm-era under the volume: after a power cut only what it names is compared, and that is all that differs"""

from __future__ import annotations

import pytest

from tests.vm.conftest import FRAGILE_BYTES, FULL, long
from tests.vm.kinds import Ability, needs
from tests.vm.pair import MIB
from tests.vm.power import cut_and_boot, start
from tests.vm.site import BLOCK_BYTES, MOUNT, STATE, Site, Volume, poll

CUTS = 4 if FULL else 1
pytestmark = [needs(Ability.PLUG), pytest.mark.variant]
LAYER = "volume"
SIZE = FRAGILE_BYTES


def make_layer(machine, options="--era-region 64K"):
    """The same command for the first time and after each boot."""
    return machine.run(
        f"controller layer create {machine.device('data')} {LAYER} --era {machine.device('era')} {options}", check=False
    )


def clear_metadata(machine):
    machine.run(f"dd if=/dev/zero of={machine.device('era')} bs=1M count=2 conv=fsync status=none")


@pytest.fixture
def site(fragile, request):
    primary = fragile.primary
    made = make_layer(primary)
    assert made.code == 0, made
    new = Site(fragile, Volume(f"/dev/mapper/{LAYER}", ((0, SIZE),)), "--era-interval 3s", "--journal-size 128M")
    new.make_filesystem(request.param)
    new.mount()
    try:
        yield new
    finally:
        primary.run(f"umount {MOUNT}", check=False)
        new.close()
        primary.run(f"controller layer remove {LAYER}", check=False)
        clear_metadata(primary)
        for machine in fragile.both:
            machine.run(f"blkdiscard -f {machine.device('data')}")


def era_is_remembered(site, after=0):
    """Until the controller remembers a later era than that; the era."""
    found = []

    def come():
        intent = site.status().get("write_intent") or {}
        found.append(intent.get("era") or 0)
        return found[-1] > after

    poll(come, f"an era after {after} is remembered")
    return found[-1]


def applied(site):
    """What the secondary has acknowledged is in its journal; its image is looked at when it is there, too."""
    site.until_applied()
    site.secondary.run("sync")


def compared_again(site, *, bounded):
    """The controller starts over what nobody saw, and is in sync again: exactly what differed was copied; bytes compared."""
    applied(site)
    differing = len(site.differing())
    site.start_primary()
    status = site.until("compared and in sync again", mode="normal", tainted=False, replica_state="up-to-date")
    said, figures, compared = site.words(), status["statistics"], status["write_intent"]["compared"]
    print(f"{differing} blocks differed; compared {compared}; {figures}")
    assert "taint" in said, said
    if bounded:
        assert compared["bytes"] <= figures["compared_bytes"] < SIZE // 2, (
            "a region that is hardly less than everything"
        )
        assert f"since era {compared['era']}" in said, said
    else:
        assert compared is None and figures["compared_bytes"] >= SIZE, said
    assert figures["copied_bytes"] == differing * BLOCK_BYTES
    site.wait()
    applied(site)
    assert not len(site.differing()), said
    return figures["compared_bytes"], differing


@pytest.mark.timeout(2 * 3600)
@pytest.mark.parametrize("site", ("ext4", *long("xfs")), indirect=True)
def test_after_a_power_cut_only_what_dm_era_names_is_compared(site, chance):
    start(site, chance)
    primary = site.primary
    for number in range(CUTS):
        era_is_remembered(site)
        site.until_steps(chance.randrange(5, 40))
        rows = site.progress()["rows"]
        cut_and_boot(site, primary, chance)
        again = make_layer(primary)
        assert again.code == 0, again
        # Before the controller runs: what is written now is dm-era's to tell, the log that the mount replays as well.
        site.mount()
        site.check_rows(rows)
        primary.run(f"dd if=/dev/urandom of={MOUNT}/unseen bs=1M count=3 conv=fsync status=none && umount {MOUNT}")
        size, differing = compared_again(site, bounded=True)
        assert differing >= 3 * MIB // BLOCK_BYTES, "the file that nobody saw being written was not among it"
        print(f"cut {number}: {size} bytes of {SIZE} compared, {differing} blocks differed")
        site.mount()
        site.check_rows(rows)
        site.start_load(chance)
    site.stop_load()
    site.unmount()
    site.wait()

    # No power cut: the controller went down, and the volume was written without it.
    era_is_remembered(site)
    primary.run(f"controller down --state {STATE}")
    site.forget(primary)
    site.mount()
    primary.run(f"dd if=/dev/urandom of={MOUNT}/down bs=1M count=2 conv=fsync status=none && umount {MOUNT}")
    _, differing = compared_again(site, bounded=True)
    assert differing >= 2 * MIB // BLOCK_BYTES

    # Other metadata than those of the remembered era say nothing about it.
    primary.run(f"controller down --state {STATE} && controller layer remove {LAYER}")
    site.forget(primary)
    refused = make_layer(primary, "--era-region 4K")
    assert refused.code == 2 and "have regions of 65536 bytes" in refused.errors, refused
    clear_metadata(primary)
    assert make_layer(primary).code == 0
    primary.run(
        f"dd if=/dev/urandom of=/dev/mapper/{LAYER} bs=4K count=1 seek={SIZE // BLOCK_BYTES - 1000} "
        "oflag=direct conv=notrunc status=none"
    )
    compared_again(site, bounded=False)
    assert "metadata are others" in site.words()
    site.compare("after all of this")
