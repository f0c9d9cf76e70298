"""The secondary killed at random instants under a database: its image is always one that a crash could have left."""

from __future__ import annotations

import contextlib
import time

import pytest

from tests.lab.cluster import cluster
from tests.lab.disks import loop_device, make_filesystem, mounted
from tests.lab.images import check_image
from tests.lab.load import Database, load
from tests.lab.patience import run
from tests.lab.rounds import short

MIB = 1 << 20
KILLS = 3


@pytest.mark.parametrize(("filesystem", "journal_mode"), short(1, ("ext4", "wal"), ("xfs", "delete")))
def test_a_killed_secondary_holds_a_sound_file_system_and_every_row_waited_for(
    tmp_path, filesystem, journal_mode, chance, rounds
):
    with loop_device(tmp_path, (320 if filesystem == "xfs" else 128) * MIB) as device:
        make_filesystem(filesystem, device.path)
        with cluster(tmp_path / "c", device) as both, mounted(device, tmp_path / "mnt") as folder:
            both.start()
            with contextlib.ExitStack() as stack, load() as running:
                databases = [Database(folder / f"{n}.db", chance.randrange(1 << 30), journal_mode) for n in range(2)]
                for database in databases:
                    stack.callback(database.close)
                    running.add(database, 0.004)
                promised = [0, 0]
                for number in range(2 + KILLS * (rounds - 1)):
                    both.until_mode("normal")
                    time.sleep(chance.uniform(0.0, 1.0))
                    rows = [database.committed for database in databases]
                    both.wait()
                    promised = rows
                    time.sleep(chance.uniform(0.0, 0.7))
                    both.secondary.kill()
                    image = both.snapshot("snapshot")
                    found = []
                    for place, least in enumerate(promised):
                        copy = image.with_name(f"copy{place}.img")
                        run("cp", "--sparse=always", image, copy)
                        found.append(check_image(filesystem, copy, tmp_path / "look", f"{place}.db", least))
                        copy.unlink()
                    print(f"kill {number}: {both.replayed}; rows {found}, promised {promised}")
                    both.start_secondary()
            both.wait()
