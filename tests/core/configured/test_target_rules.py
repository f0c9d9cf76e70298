"""Rules name a target by what its disk is, never by what it carries, and each text is one that udev and LVM take."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.configured.target_rules import (
    Match,
    TargetRule,
    is_lasting_link,
    known_targets,
    lvm_filter_of_others,
    lvm_patterns,
    lvm_rejects,
    match_of,
    udev_rules,
    with_lvm_block,
)

WWN = TargetRule("data", "/dev/disk/by-id/wwn-0x5", Match("ATTRS{wwid}", "naa.5"), ("/dev/disk/by-id/wwn-0x5",))
LV = TargetRule("lv", "/dev/vg/replica", Match("ATTR{dm/uuid}", "LVM-abc"), ("/dev/mapper/vg-replica",))
PART = TargetRule("part", "/dev/vdb3", Match("ATTRS{serial}", "s1", 3), ("/dev/disk/by-partuuid/12-ab",))
NBD = TargetRule("nbd", "/dev/nbd0", Match("KERNEL", "nbd0", lasting=False))
# udev(7): a rule is a list of KEY OPERATOR "VALUE", separated by commas.
TOKEN = re.compile(r'[A-Z_]+(?:\{[A-Za-z0-9_./]+\})?(?:==|!=|\+=|:=|=)"[^"]*"')
TOML_NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)


def match(identity: dict[str, str], mapper_name: str = "", link: str = "", kernel_name: str = "sdx") -> Match:
    found = match_of(identity, mapper_name=mapper_name, kernel_name=kernel_name, link=link)
    assert found is not None
    return found


def rules_of(*targets: TargetRule) -> list[str]:
    return [line for line in udev_rules(targets).splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize(
    ("identity", "key"),
    [
        ({"serial": "s", "wwid": "w", "dm_uuid": "LVM-u"}, "ATTR{dm/uuid}"),
        ({"serial": "s", "wwid": "w", "md_uuid": "u"}, "ATTR{md/uuid}"),
        ({"serial": "s", "wwid": "w"}, "ATTRS{wwid}"),
        ({"serial": "s"}, "ATTRS{serial}"),
        ({"slot": "0000:00:05.0"}, "KERNELS"),
        ({"backing_file": "/srv/a.img"}, "ATTR{loop/backing_file}"),
    ],
)
def test_a_disk_is_known_by_the_best_of_its_lasting_names(identity: dict[str, str], key: str) -> None:
    found = match(identity, mapper_name="vg-data", link="disk/by-id/x")
    assert found.key == key and found.value in identity.values() and found.lasting


def test_a_partition_is_known_by_its_disk_and_its_number_and_not_by_what_it_carries() -> None:
    found = match({"wwid": "w", "partition": "3", "partition_uuid": "11-22"}, link="disk/by-partuuid/11-22")
    assert found == Match("ATTRS{wwid}", "w", 3)
    line = next(line for line in rules_of(TargetRule("a", "/dev/sda3", found)) if "PYDBT_TARGET" in line)
    assert line == 'ENV{DEVTYPE}=="partition", ATTR{partition}=="3", ATTRS{wwid}=="w", ENV{PYDBT_TARGET}="a"'


def test_a_device_without_a_name_of_its_own_is_known_by_its_mapping_or_its_link_or_else_by_the_kernel() -> None:
    assert match({}, mapper_name="plain", link="mapper/plain") == Match("ATTR{dm/name}", "plain")
    assert match({}, link="rbd/pool/image", kernel_name="rbd0") == Match("SYMLINK", "rbd/pool/image")
    assert match({}, kernel_name="nbd0") == Match("KERNEL", "nbd0", lasting=False)
    assert not match({}, link="disk/by-uuid/0123", kernel_name="nbd0").lasting


def test_a_kernel_s_name_that_the_disk_of_the_machine_may_have_next_time_is_no_rule() -> None:
    assert match_of({}, mapper_name="", kernel_name="sdb", link="disk/by-label/data") is None


@pytest.mark.parametrize(
    "link", ["disk/by-uuid/a", "disk/by-label/a", "disk/by-diskseq/7", "disk/by-id/lvm-pv-uuid-a", "disk/by-loop-ref/x"]
)
def test_a_link_that_tells_the_content_or_the_boot_names_no_disk(link: str) -> None:
    assert not is_lasting_link(link)


def test_every_rule_is_a_list_of_keys_and_values_and_skips_what_is_no_target() -> None:
    lines = rules_of(WWN, LV, PART, NBD)
    for line in lines:
        assert all(
            TOKEN.fullmatch(token) or token.startswith(("GOTO=", "LABEL=")) for token in re.split(r",\s+", line)
        ), line
    skip = lines.index('ENV{PYDBT_TARGET}!="?*", GOTO="pydbt_targets_end"')
    assert lines[-1] == 'LABEL="pydbt_targets_end"' and lines.index('ENV{SYSTEMD_READY}="0"') > skip
    assert all("PYDBT_TARGET" in line or "GOTO" in line for line in lines[:skip]), (
        "nothing else is set for other devices"
    )


def test_the_properties_by_which_other_programs_act_are_emptied_and_never_compared() -> None:
    text = udev_rules([WWN])
    for name in ("ID_FS_TYPE", "ID_FS_USAGE", "ID_FS_UUID", "ID_FS_LABEL", "ID_PART_GPT_AUTO_ROOT"):
        assert f'ENV{{{name}}}=""' in text
    assert not re.search(r'ENV\{ID_[A-Z_]*\}(==|!=)"', text), "the content is the source's"
    assert 'IMPORT{parent}="PYDBT_TARGET"' in text, "the partitions of a disk are the replica's too"


def test_the_maps_that_kpartx_makes_of_a_multipath_device_belong_to_it() -> None:
    lines = rules_of(TargetRule("m", "/dev/mapper/mpatha", Match("ATTR{dm/uuid}", "mpath-3600")))
    assert any(line.startswith('ATTR{dm/uuid}=="part[0-9]*-mpath-3600"') for line in lines)


@given(st.text(max_size=60))
def test_no_name_of_a_disk_breaks_out_of_its_quotes_or_means_more_than_itself(value: str) -> None:
    text = udev_rules([TargetRule("a", value, Match("ATTRS{serial}", value), (value,))])
    line = next(line for line in text.splitlines() if "ATTRS{serial}" in line and not line.startswith("#"))
    assert line.count('"') == 6 and not set("*[|\\") & set(line.split('ATTRS{serial}=="')[1].split('"')[0])
    assert known_targets(text)["a"].match.value == value


@given(st.lists(TOML_NAMES, unique=True, max_size=4))
def test_the_file_tells_the_targets_that_it_was_made_for(names: list[str]) -> None:
    targets = [TargetRule(name, f"/dev/{name}", Match("ATTRS{wwid}", name, 2), (f"/dev/x/{name}",)) for name in names]
    assert list(known_targets(udev_rules(targets)).values()) == targets


@pytest.mark.parametrize(
    "told", ["{", "[]", '{"name": "a"}', '{"name": "a", "path": "b", "match": {"x": 1}, "links": []}']
)
def test_a_line_that_somebody_edited_is_left_out(told: str) -> None:
    assert known_targets(f"# target {told}\n") == {}


def test_without_targets_there_is_no_file() -> None:
    assert udev_rules([]) == "" and with_lvm_block("", []) == ""


# --- LVM ----------------------------------------------------------------------------------------------------
def test_lvm_is_kept_off_each_lasting_name_and_its_partitions() -> None:
    patterns = lvm_patterns([WWN, LV, PART, NBD])
    for name in ("/dev/disk/by-id/wwn-0x5", "/dev/disk/by-id/wwn-0x5-part12", "/dev/mapper/vg-replica", "/dev/nbd0p1"):
        assert lvm_rejects(patterns, [name]), name
    assert lvm_rejects(patterns, ["/dev/sdq", "/dev/disk/by-id/wwn-0x5"]), "one of its names is enough"
    for name in ("/dev/disk/by-id/wwn-0x55", "/dev/sda", "/dev/nbd01", "/dev/disk/by-partuuid/12-ab-part1"):
        assert not lvm_rejects(patterns, [name]), name


def test_lvm_is_not_kept_off_a_port_to_which_another_disk_may_be_connected() -> None:
    """At the next boot the disk that has the root file system may be there."""
    port, own = "/dev/disk/by-path/pci-0000:00:1f.2-ata-2", "/dev/disk/by-id/wwn-0x5"
    assert not lvm_rejects(lvm_patterns([TargetRule("a", own, Match("ATTRS{wwid}", "naa.5"), (own, port))]), [port])
    slot = lvm_patterns([TargetRule("a", port, Match("KERNELS", "0000:00:05.0"), (port,))])
    assert lvm_rejects(slot, [port, "/dev/vdb"]), "it is known by nothing else"


def test_the_lines_in_lvms_file_are_replaced_and_removed_and_the_rest_stays() -> None:
    text = "# mine\nlocal {\n}"
    once = with_lvm_block(text, ["r|^/dev/a$|"])
    assert once.startswith(text) and 'global_filter = [ "r|^/dev/a$|" ]' in once
    assert with_lvm_block(once, ["r|^/dev/a$|"]) == once
    twice = with_lvm_block(once, ["r|^/dev/b$|", "r|^/dev/c$|"])
    assert "/dev/a" not in twice and '"r|^/dev/b$|", "r|^/dev/c$|"' in twice
    assert with_lvm_block(twice, []).rstrip("\n") == text
    assert lvm_filter_of_others(twice) is None, "its own lines are nobody else's"


def test_a_filter_of_the_administrator_is_found_and_the_later_file_counts() -> None:
    main = 'devices {\n # global_filter = [ "a|.*|" ]\n global_filter = [ "r|/dev/x|",\n "a|.*|" ]\n}\n'
    assert lvm_filter_of_others(main) == ("r|/dev/x|", "a|.*|")
    assert lvm_filter_of_others(main, 'devices/global_filter="r|/dev/y|"') == ("r|/dev/y|",)
    assert lvm_filter_of_others("# global_filter = [ 1 ]\n", "") is None
    classes = 'global_filter = [ "r|/dev/[sv]db|", "a|[^]]|" ]\nfilter = [ "a|x|" ]\n'
    assert lvm_filter_of_others(classes) == ("r|/dev/[sv]db|", "a|[^]]|")
    assert lvm_rejects(lvm_filter_of_others(classes) or (), ["/dev/vdb"])


@pytest.mark.parametrize(
    ("elements", "names", "rejected"),
    [
        (["r|^/dev/sdb$|"], ["/dev/sdb", "/dev/disk/by-id/x"], True),
        (["r|^/dev/sdb$|", "a|.*|"], ["/dev/sdb", "/dev/disk/by-id/x"], False),
        (["a|^/dev/sda|", "r|.*|"], ["/dev/sdb", "/dev/disk/by-id/x"], True),
        (["r(/dev/sdb)"], ["/dev/sdb"], True),
        (["r|[|", "r|sdb|"], ["/dev/sdb"], True),
        (["x", "q|sdb|"], ["/dev/sdb"], False),
        ([], ["/dev/sdb"], False),
    ],
)
def test_a_filter_rejects_a_device_as_lvm_does(elements: list[str], names: list[str], rejected: bool) -> None:
    assert lvm_rejects(elements, names) is rejected
