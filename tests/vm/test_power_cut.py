"""Real power cuts: a machine is killed under load, and its disks forget what was not flushed"""

from __future__ import annotations

import re

import pytest

from tests.lab.images import check_image
from tests.vm.conftest import FULL, long
from tests.vm.kinds import Ability, needs
from tests.vm.power import cut_and_boot, start
from tests.vm.site import BLOCK_BYTES, MOUNT, STATE, Site, copy_image, make_volume

CUTS = 4 if FULL else 1
FOUND = re.compile(
    r"of ([\d.]+ \w+) that differed, ([\d.]+ \w+) were found in the first ([\d.]+ \w+) of the comparison, and [^\n]*"
)
LEAST_PART = 10
"""A tenth of the bytes that differ at least is found in the first percent; where the log leads nowhere, a hundredth."""
TELLING_BLOCKS = 64
"""Of fewer blocks that differ in all cuts the part is chance."""
pytestmark = [needs(Ability.PLUG), pytest.mark.variant]


@pytest.fixture
def site(fragile, request):
    new = Site(fragile, make_volume(fragile.primary, "disk"), secondary_options="--journal-size 128M")
    new.make_filesystem(request.param)
    new.mount()
    try:
        yield new
    finally:
        fragile.primary.run(f"umount {MOUNT}", check=False)
        new.close()
        for machine in fragile.both:
            machine.run(f"blkdiscard -f {machine.device('data')}")


def bytes_of(words: str) -> float:
    """What ``format_bytes`` has made words of."""
    number, unit = words.split()
    return float(number) * 1024 ** ("B", "KiB", "MiB", "GiB", "TiB").index(unit)


def found_first(said: str) -> tuple[float, float]:
    """Of the last comparison in what controllers said: bytes that differed, and that were found in its first percent."""
    told = list(FOUND.finditer(said))
    if not told:
        return 0.0, 0.0
    print(told[-1][0])
    return bytes_of(told[-1][1]), bytes_of(told[-1][2])


@pytest.mark.timeout(2 * 3600)
@pytest.mark.parametrize("site", ("ext4", *long("xfs")), indirect=True)
def test_after_a_power_cut_of_the_primary_exactly_the_blocks_that_differ_are_copied(site, chance):
    start(site, chance)
    differed = first = 0.0
    for number in range(CUTS):
        site.until_steps(chance.randrange(5, 40))
        rows = site.progress()["rows"]
        cut_and_boot(site, site.primary, chance)
        site.until_applied()
        differing = len(site.differing())
        site.start_primary()
        status = site.until("compared and in sync again", mode="normal", tainted=False, replica_state="up-to-date")
        said = site.words()
        print(f"cut {number}: {differing} blocks differed, {status['statistics']}")
        assert "taint" in said, said
        if differing:
            of_this, found_of_this = found_first(said)
            assert of_this or differing < TELLING_BLOCKS, f"the comparison did not begin where the log leads: {said}"
            differed, first = differed + of_this, first + found_of_this
        assert status["statistics"]["compared_bytes"] >= site.volume.size_bytes, "not everything was compared"
        assert status["statistics"]["copied_bytes"] == differing * BLOCK_BYTES
        site.wait()
        assert not len(site.differing()), site.words()
        # And it goes on: mounted (its log is replayed), sound, with every row that was committed.
        site.mount()
        found = site.check_rows(rows)
        print(f"rows {found}, committed before the cut {rows}")
        site.start_load(chance)
    print(f"of {differed:.0f} bytes that differed, {first:.0f} were found in the first percent")
    assert differed < TELLING_BLOCKS * BLOCK_BYTES or first * LEAST_PART >= differed
    site.stop_load()
    site.unmount()
    site.wait()
    site.compare("after power cuts of the primary")


@pytest.mark.timeout(2 * 3600)
@pytest.mark.parametrize("site", ("ext4", *long("xfs")), indirect=True)
def test_after_a_power_cut_of_the_secondary_its_image_is_sound_and_has_what_was_waited_for(
    site, chance, request, tmp_path
):
    start(site, chance)
    filesystem = request.node.callspec.params["site"]
    for number in range(CUTS):
        site.until("in sync", mode="normal")
        site.until_steps(chance.randrange(2, 20))
        promised = site.progress()["rows"]
        site.wait()
        cut_and_boot(site, site.secondary, chance)
        device = site.secondary.device("data")
        said = site.secondary.run(f"controller secondary {device} --state {STATE} --replay-only && sync").output.strip()
        image = copy_image(site.secondary, tmp_path / "image")
        rows = check_image(filesystem, image, tmp_path / "look", "rows.db", promised)
        print(f"cut {number}: {said}; rows {rows}, promised {promised}")
        site.start_secondary()
    site.until("in sync again", mode="normal")
    site.stop_load()
    site.unmount()
    site.wait()
    site.compare("after power cuts of the secondary")
