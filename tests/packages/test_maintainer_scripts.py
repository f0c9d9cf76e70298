"""The scripts of the Debian package: removal refuses while anything goes on, purge removes no data, an upgrade stops nothing."""

from __future__ import annotations

import contextlib
import fcntl
import json
import pkgutil
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

import pydbt.cli.cluster
import pydbt.controller
import pydbt.store
from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.configured.boot_order import NAMES_SUFFIX
from pydbt.core.configured.target_rules import (
    LVM_FILE,
    RULES_FILE,
    Match,
    TargetRule,
    lvm_patterns,
    udev_rules,
    with_lvm_block,
)
from pydbt.core.protocol.frames import Stream
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.kernel.code_cache import FOLDER
from pydbt.store.journal_files import JournalFiles
from pydbt.store.peer_pin import PEER_FILE_NAME
from pydbt.store.replica_state import save_record
from pydbt.store.volume_state import VOLUME_FILE_NAME
from tests.packages.roots import Done, Root, root_over

pytestmark = [pytest.mark.packages, pytest.mark.smoke]
DEBIAN = Path(__file__).resolve().parents[2] / "packaging/debian"
SEGMENT_BYTES = 64 * 1024
PRIMARY = {"role": "primary", "place": "/dev/vda3", "state_dir": "/var/lib/pydbt/data", "process": 4711}
PROGRAMS = "sys/fs/bpf/pydbt/00112233445566778899aabbccddeeff"
RECORD = ReplicaRecord(
    replica="12" * 16, target="file:7:512", segment_bytes=SEGMENT_BYTES, volume="ab" * 16, size_bytes=512,
    block_bytes=512, consistent=True, incarnation=1,
)  # fmt: skip
# Names that stand for something else than a file in the state directory.
ELSEWHERE = {"JOURNAL_FOLDER", "REVOKED_FILE_NAME"}


@pytest.fixture
def root() -> Iterator[Root]:
    """This machine's files, without anything of pydbt, and with stand-ins for what only a machine has."""
    with root_over(Path("/")) as made:
        made.path("run/systemd/system").mkdir(parents=True)
        made.write("units")
        made.write("calls")
        stand_in(made, "systemctl", 'echo "$*" >>/calls; [ "$1" != list-units ] || cat /units')
        for name in ("etc/systemd/system", "usr/sbin/policy-rc.d", "usr/local/bin/controller", "usr/local/bin/pydbt"):
            made.run("rm", "-rf", f"/{name}")
        made.run("mkdir", "-p", "/etc/systemd/system/multi-user.target.wants", "/etc/pydbt/volumes", "/var/lib/pydbt")
        yield made


def stand_in(root: Root, name: str, text: str) -> None:
    root.write(f"usr/local/bin/{name}", f"#!/bin/sh\n{text}\n", 0o755)


def script(root: Root, name: str, *words: str, check: bool = True) -> Done:
    """As the package has it, without what debhelper adds."""
    place = DEBIAN / f"pydbt.{name}"
    text = place.read_text() if place.exists() else place.with_suffix(f".{name}.in").read_text()
    text = text.replace("#COMMON#\n", (DEBIAN / "common.sh").read_text())
    root.write(f"tmp/{name}", text, 0o755)
    return root.run(f"/tmp/{name}", *words, check=check)


@contextmanager
def living(root: Root, name: str, entry: dict[str, object]) -> Iterator[None]:
    """A controller that holds its file, as pydbt/controller/registry.py does."""
    with root.write(f"run/pydbt/{name}", json.dumps(entry)).open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def replica(root: Root, name: str, **changes: object) -> Path:
    place = root.path(f"var/lib/pydbt/{name}")
    (place / "journal").mkdir(parents=True)
    save_record(place, replace(RECORD, **changes))
    (place / "status.json").write_text(json.dumps({"role": "secondary", "target": f"/dev/vg/{name}"}) + "\n")
    return place


def with_records(place: Path, count: int) -> list[int]:
    """Put records into a journal; their ends."""
    journal = JournalFiles(place / "journal", segment_bytes=SEGMENT_BYTES, most_reserved_bytes=0)
    journal.start(0, 0, 1)
    ends = journal.append([Stream(n, n, SectorTable.of([n], [1]), (bytes(512),)) for n in range(1, count + 1)])
    journal.sync()
    journal.close()
    return ends


# --- removal ------------------------------------------------------------------------------------------------
def test_removal_goes_through_where_nothing_goes_on_and_says_what_stays(root: Root) -> None:
    root.write("run/pydbt/8-1", json.dumps(PRIMARY))  # of a controller that has ended
    said = script(root, "prerm", "remove").output
    assert "/var/lib/pydbt stay" in said and "purge" in said
    assert "holds data" not in said


@pytest.mark.parametrize(
    ("name", "entry", "words"),
    [
        ("8-1", PRIMARY, "process 4711: primary of /dev/vda3"),
        ("secondary-0123456789abcdef", {**PRIMARY, "role": "secondary", "place": "/dev/vdb"}, "secondary of /dev/vdb"),
        ("state-0123456789abcdef", {**PRIMARY, "role": "state"}, "process 4711"),
        ("supervisor-run-0123456789abcdef.lock", {}, "runs what is configured"),
        ("../../var/lib/pydbt/data/lock", {}, "uses /var/lib/pydbt/data"),  # of a replay, for example
    ],
)
def test_removal_is_refused_while_a_controller_lives(
    root: Root, name: str, entry: dict[str, object], words: str
) -> None:
    with living(root, name, entry):
        done = script(root, "prerm", "remove", check=False)
    assert done.code and words in done.output and "controller down --all" in done.output
    assert all(line.startswith("list-units") for line in calls(root)), "nothing is stopped"


def calls(root: Root) -> list[str]:
    return root.path("calls").read_text().splitlines()


def test_removal_is_refused_while_a_unit_waits_for_its_next_start(root: Root) -> None:
    root.write("units", "pydbt@data.service loaded activating auto-restart Replication of volume data\n")
    done = script(root, "prerm", "remove", check=False)
    assert done.code and "unit pydbt@data.service" in done.output
    assert "pydbt-arm@*.service" in calls(root)[-1], "the third kind of unit is asked for as well"


def test_removal_is_refused_while_programs_track_writes(root: Root) -> None:
    root.write(f"{PROGRAMS}/meta")
    done = script(root, "prerm", "remove", check=False)
    assert done.code and f"/{PROGRAMS}" in done.output and root.path(f"{PROGRAMS}/meta").exists()


def test_removal_is_refused_while_there_is_a_layer(root: Root) -> None:
    root.write("sys/block/dm-0/dm/uuid", "PYDBT-LAYER-data\n")
    done = script(root, "prerm", "remove", check=False)
    assert done.code and "layer /dev/mapper/data" in done.output and "layer remove" in done.output


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("etc/systemd/system/data.mount.d/gate.conf", "[Unit]\nRequires=pydbt-gate@data.service\n"),
        (
            "etc/systemd/system/systemd-fsck@dev-vda3.service.d/x.conf",
            "[Unit]\nRequires=a.service pydbt-gate@data.service\n",
        ),
        ("etc/systemd/system/data.mount", "[Unit]\nBindsTo=pydbt-gate@data.service\n[Mount]\nWhere=/data\n"),
        ("etc/fstab", "/dev/vda3 /data ext4 _netdev,x-systemd.requires=pydbt-gate@data.service 0 2\n"),
    ],
)
def test_removal_is_refused_while_a_mount_requires_its_gate(root: Root, file: str, text: str) -> None:
    """The next boot would fail: the unit would not be found."""
    root.write("etc/systemd/system/pydbt@data.service.d/own.conf", "[Unit]\nRequires=pydbt-arm@data.service\n")
    root.write("etc/systemd/system/srv.mount.d/old.conf", "[Unit]\n# Requires=pydbt-gate@data.service\n")
    script(root, "prerm", "remove")
    root.write(file, text)
    done = script(root, "prerm", "remove", check=False)
    assert done.code and f"/{file}, which requires" in done.output and "daemon-reload" in done.output
    assert "own.conf" not in done.output and "old.conf" not in done.output and root.path(file).exists()


def test_in_a_chroot_what_goes_on_is_the_machine_s(root: Root) -> None:
    root.write(f"{PROGRAMS}/meta")
    stand_in(root, "ischroot", "exit 0")
    script(root, "prerm", "remove")
    script(root, "postrm", "purge")
    assert root.path(f"{PROGRAMS}/meta").exists()


def test_a_file_of_another_user_prints_nothing_that_a_terminal_obeys(root: Root) -> None:
    with living(root, "8-1", {**PRIMARY, "place": "x"}):
        root.path("run/pydbt/8-1").write_text('{"process": 1, "role": "primary", "place": "\x1b[2J/dev/vda"}')
        assert "\x1b" not in script(root, "prerm", "remove", check=False).output


def test_nothing_of_a_user_is_opened_with_root_s_rights(root: Root) -> None:
    folder = root.path("run/user/65534/pydbt")
    folder.mkdir(parents=True)
    (folder / "secondary-a").write_text(json.dumps({**PRIMARY, "role": "secondary", "place": "/home/image"}))
    (folder / "secondary-b").write_text("x" * 200_000)
    secret = root.write("etc/secret", json.dumps({**PRIMARY, "place": "a secret"}), 0o600)
    folder.chmod(0o777)
    with contextlib.ExitStack() as held:
        for name in ("secondary-a", "secondary-b"):
            fcntl.flock(held.enter_context((folder / name).open()), fcntl.LOCK_EX)
        fcntl.flock(held.enter_context(secret.open()), fcntl.LOCK_EX)
        # What a user puts in the place of the file between the look at it and the opening.
        place = "/run/user/65534/pydbt/secondary-c"
        for evil in ("ln -sfn /etc/secret", "ln -sfn /etc/nologin", f"rm -f {place}; mkfifo"):
            swap = f'case "$*" in *-c*) {evil} {place} ;; esac'
            stand_in(root, "timeout", f'{swap}\nexec /usr/bin/timeout "$@"')
            root.run("rm", "-f", "/run/user/65534/pydbt/secondary-c")
            (folder / "secondary-c").write_text("{}")
            done = script(root, "prerm", "remove", check=False)
            assert done.code and "secondary of /home/image" in done.output and "secret" not in done.output
    assert not root.path("etc/nologin").exists()


def test_removal_names_each_replica_whose_target_lacks_what_was_acknowledged(root: Root) -> None:
    with_records(replica(root, "behind"), 3)
    replica(root, "even")
    said = script(root, "prerm", "remove").output
    assert "controller secondary /dev/vg/behind --state /var/lib/pydbt/behind --replay-only" in said
    assert "even" not in said


@pytest.mark.parametrize("words", [("upgrade", "2.0"), ("deconfigure", "in-favour", "other", "1")])
def test_an_upgrade_is_never_refused_and_stops_nothing(root: Root, words: tuple[str, ...]) -> None:
    root.write(f"{PROGRAMS}/meta")
    with living(root, "8-1", PRIMARY):
        script(root, "prerm", *words)
        script(root, "postrm", words[0], *words[1:])
    assert calls(root) == [] and root.path(f"{PROGRAMS}/meta").exists()


# --- installation and upgrade ---------------------------------------------------------------------------------
def test_a_first_installation_starts_nothing(root: Root) -> None:
    root.write("units", "pydbt@data.service loaded active running Replication of volume data\n")
    script(root, "postinst", "configure", "")
    assert calls(root) == []


def test_an_upgrade_starts_what_runs_anew_and_does_not_wait_for_it(root: Root) -> None:
    root.write(
        "units",
        "pydbt@data.service loaded active running Replication of volume data\n"
        "pydbt-secondary@other.service loaded activating start Replica other\n"
        "pydbt-dashboard.service loaded active running Dashboard of replicated volumes\n",
    )
    said = script(root, "postinst", "configure", "0.1.0-1").output
    assert calls(root)[0] == "--system daemon-reload"
    assert [line for line in calls(root) if "restart" in line] == [
        "--no-block try-restart pydbt@data.service", "--no-block try-restart pydbt-secondary@other.service",
        "--no-block try-restart pydbt-dashboard.service",
    ]  # fmt: skip
    assert "pydbt@data.service is started anew" in said
    assert not [line for line in calls(root) if "pydbt-hold" in line], "at no moment nobody holds the target"


def test_an_upgrade_leaves_running_what_the_machine_s_policy_protects(root: Root) -> None:
    root.write("units", "pydbt@data.service loaded active running Replication of volume data\n")
    stand_in(root, "policy-rc.d", "exit 101")
    said = script(root, "postinst", "configure", "0.1.0-1").output
    assert not [line for line in calls(root) if "restart" in line]
    assert "runs on with the version of before" in said


def test_an_upgrade_names_the_controllers_that_no_unit_runs(root: Root) -> None:
    root.write("usr/bin/controller", "import time\ntime.sleep(600)\n", 0o755)
    root.shell("/usr/bin/python3 -I /usr/bin/controller run data >/dev/null 2>&1 & echo $! >/number")
    number = root.path("number").read_text().strip()
    said = script(root, "postinst", "configure", "0.1.0-1").output
    assert f"process {number} was not started by a unit" in said


def test_an_installation_names_what_comes_before_it(root: Root) -> None:
    root.write("usr/local/bin/controller", "", 0o755)
    units = [path.name for kind in ("service", "socket") for path in sorted(DEBIAN.parent.glob(f"systemd/*.{kind}"))]
    for unit in units:
        root.write(f"etc/systemd/system/{unit}")
    said = script(root, "postinst", "configure", "").output
    assert "/usr/local/bin/controller comes before" in said and len(units) == 7
    for unit in units:
        assert f"/etc/systemd/system/{unit} comes" in said


# --- purge ------------------------------------------------------------------------------------------------
def test_purge_removes_what_the_program_made_and_names_it(root: Root) -> None:
    root.write(f"{PROGRAMS}/meta")
    root.write(f"{PROGRAMS}/link_submit")
    root.write("run/pydbt/8-1", json.dumps(PRIMARY))
    root.write(f"{FOLDER}/programs.json")
    root.write(f"var/lib/pydbt/data/{VOLUME_FILE_NAME}")
    ends = with_records(replica(root, "even"), 3)
    save_record(root.path("var/lib/pydbt/even"), replace(RECORD, checkpoint=ends[-1]))
    root.write("etc/pydbt/volumes/data.toml", '[run]\nsource = "/dev/vda3"\n')
    root.write("etc/pydbt/cluster/run/other.toml", '[run]\nsource = "/dev/vdb3"\n')
    root.write("etc/pydbt/cluster/secondary/other.toml", '[secondary]\ntarget = "/dev/vdb3"\n')
    for place in ("volumes/data", "cluster/run/other", "cluster/secondary/other"):
        root.write(f"etc/pydbt/{place}{NAMES_SUFFIX}")
        unfinished = root.path(f"etc/pydbt/{place}{NAMES_SUFFIX}")
        root.write(f"etc/pydbt/{Path(place).parent}/.{unfinished.name}.0011aabb.new")
    root.write("etc/pydbt/controller.toml")
    root.write("etc/pydbt/alpha.identity", "key", 0o600)
    root.write("var/lib/pydbt/dashboard.token", "token", 0o600)
    root.write("var/lib/pydbt/dashboard/0011223344556677", "alpha")
    root.write("var/lib/pydbt/dashboard/0011223344556677.key", "sha256:00")
    links = [
        root.path("etc/systemd/system/multi-user.target.wants/pydbt-dashboard.service"),
        root.path("etc/systemd/system/sockets.target.wants/pydbt-dashboard.socket"),
    ] + [
        root.path(f"etc/systemd/system/multi-user.target.wants/pydbt{kind}@data.service")
        for kind in ("", "-secondary", "-arm")
    ]
    for link in links:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"/usr/lib/systemd/system/{link.name.replace('data', '')}")
    said = script(root, "postrm", "purge").output
    for name in (f"/{PROGRAMS}", "/var/lib/pydbt/data", "/var/lib/pydbt/even", "/etc/pydbt/volumes/data.toml",
                 "/etc/pydbt/cluster/run/other.toml", "/etc/pydbt/cluster/secondary/other.toml",
                 "/etc/pydbt/controller.toml", "/etc/pydbt/alpha.identity", "/var/lib/pydbt/dashboard.token"):  # fmt: skip
        assert f"removed {name}" in said, said
    for gone in ("sys/fs/bpf/pydbt", "run/pydbt", str(FOLDER), "var/lib/pydbt", "etc/pydbt"):
        assert not root.path(gone).exists(), gone
    assert not any(link.is_symlink() for link in links) and calls(root)[-1] == "--system daemon-reload"
    assert "left" not in said


def test_purge_removes_the_rules_of_targets_and_leaves_lvm_what_others_wrote(root: Root) -> None:
    rule = TargetRule("data", "/dev/vdb", Match("ATTRS{wwid}", "naa.5"), ("/dev/disk/by-id/wwn-0x5",))
    rules = root.write(RULES_FILE, udev_rules([rule]))
    lvm = root.write(LVM_FILE, with_lvm_block("local {\n}\n", lvm_patterns([rule])) + "# mine\n")
    stand_in(root, "update-initramfs", 'echo "update-initramfs $*" >>/calls')
    kept = script(root, "prerm", "remove").output
    assert "stay too" in kept and rules.exists() and "global_filter" in lvm.read_text(), (
        "the disks carry the marks still"
    )
    said = script(root, "postrm", "purge").output
    assert not rules.exists() and f"removed /{RULES_FILE}" in said
    text = lvm.read_text()
    assert "local {" in text and "# mine" in text and "pydbt" not in text and "global_filter" not in text
    assert "update-initramfs -u" in calls(root)


def test_the_initial_ram_disk_gets_the_rules_of_targets_and_the_filter_of_lvm(root: Root) -> None:
    root.write("tmp/hook", (DEBIAN.parent / "initramfs/pydbt").read_text(), 0o755)
    assert root.run("/tmp/hook", "prereqs").output.split() == ["udev", "lvm2"], "behind those that make the folders"
    root.run("sh", "-c", "mkdir -p /tmp/ram && DESTDIR=/tmp/ram /tmp/hook")  # nothing is configured
    root.write(RULES_FILE, "rules")
    root.write(LVM_FILE, "filter")
    root.run("sh", "-c", "mkdir -p /tmp/ram/usr/lib/udev/rules.d /tmp/ram/etc/lvm && DESTDIR=/tmp/ram /tmp/hook")
    assert root.path("tmp/ram/usr/lib/udev/rules.d/62-pydbt-targets.rules").read_text() == "rules"
    assert root.path("tmp/ram/etc/lvm/lvmlocal.conf").read_text() == "filter"


def test_the_hook_of_a_new_kernel_compiles_for_it_where_programs_were_compiled_before(root: Root) -> None:
    root.write("tmp/hook", (DEBIAN.parent / "kernel/pydbt").read_text(), 0o755)
    root.write("usr/bin/controller", '#!/bin/sh\necho "controller $*" >>/calls\necho "$said"\nexit "$code"\n', 0o755)
    new = ("6.1.0-44-amd64", "/boot/vmlinuz-6.1.0-44-amd64")
    root.run("env", "code=0", "/tmp/hook", *new)
    assert calls(root) == [], "a machine that has replicas alone needs no programs"
    root.write("var/cache/pydbt/0123-4567.json")
    assert (
        root.run("env", "code=0", "said=compiled for it", "/tmp/hook", *new).output.strip() == "pydbt: compiled for it"
    )
    root.run("env", "code=0", "/tmp/hook", new[0])
    root.run("env", "code=0", "/tmp/hook")
    assert calls(root) == [f"controller compile --image {new[1]}", f"controller compile --kernel {new[0]}"]
    failed = root.run("env", "code=3", "said=controller: no headers", "/tmp/hook", *new)
    assert "compiled at its first start: controller: no headers" in failed.output, "the kernel is still installed"
    root.path("usr/bin/controller").unlink()
    root.run("/tmp/hook", *new)


def test_an_upgrade_compiles_its_own_programs_before_it_starts_anything_anew(root: Root) -> None:
    root.write("units", "pydbt@data.service loaded active running Replication of volume data\n")
    stand_in(root, "controller", 'echo "controller $*" >>/calls')
    script(root, "postinst", "configure", "0.1.0-1")
    assert not [line for line in calls(root) if line.startswith("controller")], "there were none of another version"
    root.path("calls").unlink()
    root.write("var/cache/pydbt/0123-4567.json")
    script(root, "postinst", "configure", "0.1.0-1")
    assert calls(root)[0] == "controller compile" and any("try-restart" in line for line in calls(root))
    root.path("calls").unlink()
    stand_in(root, "controller", "exit 3")
    said = script(root, "postinst", "configure", "0.1.0-1").output
    assert "are compiled at the next start" in said and any("try-restart" in line for line in calls(root))


def test_purge_keeps_a_journal_with_data_that_is_on_no_target(root: Root) -> None:
    with_records(replica(root, "behind"), 3)
    (replica(root, "aside", kept_aside=True) / "bad-blocks").write_bytes(b"PDBAD")
    place = replica(root, "unreadable")
    (place / "replica.json").write_text("{}\n")
    with_records(replica(root, "promoted", promoted="2026-01-02T16:18:58+00:00"), 3)
    before = {path: path.read_bytes() for path in root.path("var/lib/pydbt").rglob("*") if path.is_file()}
    said = script(root, "postrm", "purge").output
    for name in ("behind", "aside", "unreadable"):
        assert f"left /var/lib/pydbt/{name}: it holds data" in said, said
    assert "removed /var/lib/pydbt/promoted" in said
    for path, content in before.items():
        assert path.is_relative_to(root.path("var/lib/pydbt/promoted")) or path.read_bytes() == content


def test_purge_finds_the_journal_s_data_at_each_of_its_records(root: Root) -> None:
    place = replica(root, "data")
    ends = with_records(place, 200)
    assert ends[-1] > SEGMENT_BYTES, "in more than one segment"
    lasting = [end for end in (0, *ends) if end % SEGMENT_BYTES]
    for end in (0, lasting[5], lasting[-2]):
        save_record(place, replace(RECORD, checkpoint=end))
        assert "left /var/lib/pydbt/data" in script(root, "postrm", "purge").output
    save_record(place, replace(RECORD, checkpoint=ends[-1]))
    assert "removed /var/lib/pydbt/data" in script(root, "postrm", "purge").output


def test_purge_keeps_the_files_of_others(root: Root) -> None:
    replica(root, "data")
    image = root.write("var/lib/pydbt/data/replica.img", "a replica")
    other = root.write("var/lib/pydbt/other.img", "a replica")
    key = root.write("etc/pydbt/pki/authority", "an authority", 0o600)
    far = root.path("srv/state")
    far.mkdir(parents=True)
    root.write("etc/pydbt/volumes/far.toml", '[secondary]\nstate = "/srv/state"\n')
    said = script(root, "postrm", "purge").output
    assert image.exists() and other.exists() and key.exists() and far.is_dir()
    for words in ("left /var/lib/pydbt/data", "left /var/lib/pydbt:", "left /etc/pydbt:", "left /srv/state"):
        assert words in said, said


@pytest.mark.parametrize("how", ["a link of a user", "a folder of a user", "a link to another folder"])
def test_purge_removes_no_programs_where_a_user_can_choose_what_that_is(root: Root, how: str) -> None:
    kept = root.write("etc/ours/meta")
    other = root.write("etc/ours/folder/meta")
    pins = root.path("sys/fs/bpf/pydbt")
    pins.parent.mkdir(parents=True)
    if how == "a link of a user":
        pins.symlink_to("/etc/ours")
    else:
        pins.mkdir()
        (pins / "volume").symlink_to("/etc/ours")
    if how == "a folder of a user":
        root.run("chown", "65534", "/sys/fs/bpf/pydbt")
        root.write("sys/fs/bpf/pydbt/mine/meta")
    said = script(root, "postrm", "purge").output
    assert kept.exists() and other.exists() and "programs are detached" not in said
    assert ("left /sys/fs/bpf/pydbt" in said) == (how != "a link to another folder")


def test_purge_disables_the_units_of_every_kind(root: Root) -> None:
    links = [f"local-fs.target.wants/pydbt-arm@{name}.service" for name in ("a", "b")]
    links += ["multi-user.target.wants/pydbt@a.service", "srv.mount.requires/pydbt-secondary@a.service"]
    for name in links:
        place = root.path(f"etc/systemd/system/{name}")
        place.parent.mkdir(exist_ok=True)
        place.symlink_to("/usr/lib/systemd/system/x.service")
    said = script(root, "postrm", "purge").output
    assert all(f"removed /etc/systemd/system/{name}" in said for name in links), said
    assert not [name for name in links if root.path(f"etc/systemd/system/{name}").is_symlink()]


def test_purge_touches_nothing_while_another_installation_uses_it(root: Root) -> None:
    root.write(f"{PROGRAMS}/meta")
    root.write(f"var/lib/pydbt/data/{VOLUME_FILE_NAME}")
    with living(root, "8-1", PRIMARY):
        said = script(root, "postrm", "purge").output
    assert "another installation" in said and "primary of /dev/vda3" in said
    assert root.path(f"{PROGRAMS}/meta").exists() and root.path(f"var/lib/pydbt/data/{VOLUME_FILE_NAME}").exists()


def names_of_files() -> set[str]:
    """Of the files in a state directory: the constants of the rooms that write there."""
    found = set()
    for room in (pydbt.store, pydbt.controller, pydbt.cli.cluster):
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            for name, value in vars(import_module(module.name)).items():
                if re.fullmatch(r"[A-Z_]+_NAME", name) and name not in ELSEWHERE and isinstance(value, str):
                    found.add(value)
    return found


def test_purge_knows_every_file_of_a_state_directory(root: Root) -> None:
    names = names_of_files()
    assert {"replica.json", "dirty.map", "peer", "lock", "status.json"} <= names
    assert {"cluster-role", "cluster.log", "cluster-promotion", "cluster-words", "gate.json"} <= names
    names |= {f"{PEER_FILE_NAME}.key", "peer-2", "peer-2.key", "dirty-2.map", "staged.map", "free-2.map", "era.map"}
    for name in names - {"bad-blocks"}:
        root.write(f"var/lib/pydbt/data/{name}")
    root.write("var/lib/pydbt/data/.replica.json.0011aabb.new")
    root.write("var/lib/pydbt/data/replica.json", '{"checkpoint": 0, "segment_bytes": 65536, "promoted": ""}\n')
    said = script(root, "postrm", "purge").output
    left = [path.name for path in root.path("var/lib/pydbt").glob("data/*")]
    assert "removed /var/lib/pydbt/data" in said and not left, left
