"""A site under load, and the plug that is pulled."""

from __future__ import annotations

import time

from tests.vm.site import mount_state


def cut_and_boot(site, machine, chance):
    """The plug is pulled at some instant, and the machine comes up again."""
    # The compiled programs are on the machine's own disk, which loses nothing: the next start needs no compiler again.
    machine.run("sync -f /var/cache/pydbt", check=False)
    time.sleep(chance.uniform(0.0, 3.0))  # any instant will do: this waits for nothing
    # And then the next one at which the disk, or the one with the state directory, holds something that it may lose.
    disk = machine.disks[chance.choice(("data", "data", "state"))]
    disk.fail_at(chance.choice((1, 1 << 13, 1 << 16)), 10)
    machine.power_cut(chance)
    site.forget(machine)
    lost = {name: disk.lost_bytes for name, disk in machine.disks.items()}
    print(f"power cut of {machine.name}; its disks lost, so far, in bytes: {lost}")
    machine.boot()
    mount_state(machine)


def start(site, chance):
    site.start_secondary()
    site.start_primary()
    site.until("the first copy is complete", mode="normal")
    # Not before: what was freed by then would not be copied, and these tests compare free space as well.
    site.start_load(chance)
