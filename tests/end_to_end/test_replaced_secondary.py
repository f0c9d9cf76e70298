"""Another replica at the secondary's address is overwritten only by the operator's word, and never in its silence."""

from __future__ import annotations

import shutil

from tests.lab.cluster import cluster
from tests.lab.disks import loop_device
from tests.lab.patience import until

SIZE = 16 << 20


def test_another_replica_in_its_place_is_refused_until_the_operator_accepts_it(tmp_path, chance):
    with loop_device(tmp_path, SIZE) as device, cluster(tmp_path / "c", device) as both:
        with device.path.open("r+b") as disk:
            disk.write(chance.randbytes(1 << 20))
        both.start()
        both.wait()
        both.secondary.terminate()
        shutil.rmtree(both.secondary_state)
        both.target.unlink()
        both.start_secondary()
        until(lambda: "another replica" in (both.status() or {}).get("connection_problem", ""), "it is noticed")
        status = both.status()
        assert (
            status["mode"] == "unsynchronized" and not status["connected"] and status["replica_state"] != "up-to-date"
        )
        assert both.try_wait(1).code == 8
        assert both.secondary_status()["volume"] is None, "nothing was sent to it"
        both.primary.terminate()
        both.primary_options = (*both.primary_options, "--accept-replica")
        both.start_primary()
        both.wait()
        both.compare("after the operator's word")
