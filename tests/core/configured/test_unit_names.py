"""Units and devices are named as systemd names them; tests/packages/test_boot_order.py compares with systemd itself."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.configured.unit_names import (
    MAX_UNIT_NAME_BYTES,
    device_unit,
    fsck_unit,
    named_device,
    simplified,
    unit_of_path,
)

ALLOWED = set(string.ascii_letters + string.digits + ":-_.\\@")
TEXTS = st.text(st.characters(codec="utf-8") | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF))


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/", "-.mount"),
        ("//", "-.mount"),
        ("/srv/data", "srv-data.mount"),
        ("/srv//data/./", "srv-data.mount"),
        ("/srv/my data", "srv-my\\x20data.mount"),
        ("/srv/a-b", "srv-a\\x2db.mount"),
        ("/.hidden/.x", "\\x2ehidden-.x.mount"),
        ("/srv/ä", "srv-\\xc3\\xa4.mount"),
        ("/srv/\udcff", "srv-\\xff.mount"),
        ("/a\\b", "a\\x5cb.mount"),
        ("/srv/../data", ""),
        ("srv/data", ""),
        ("", ""),
        ("none", ""),
        ("/" + "x" * 249, "x" * 249 + ".mount"),
        ("/" + "x" * 250, ""),
    ],
)
def test_the_unit_of_a_mount_point(path: str, unit: str) -> None:
    assert unit_of_path(path, "mount") == unit


def test_the_units_of_a_device() -> None:
    assert device_unit("/dev/disk/by-uuid/1-2") == "dev-disk-by\\x2duuid-1\\x2d2.device"
    assert fsck_unit("/dev/mapper/vg-a--b") == "systemd-fsck@dev-mapper-vg\\x2da\\x2d\\x2db.service"
    assert fsck_unit("/dev/" + "x" * 240) == "" and fsck_unit("") == ""


@pytest.mark.parametrize(
    ("spec", "device"),
    [
        ("/dev/vda3", "/dev/vda3"),
        ("/dev//vda3/", "/dev/vda3"),
        ("UUID=12-ab", "/dev/disk/by-uuid/12-ab"),
        ('UUID="12-ab"', "/dev/disk/by-uuid/12-ab"),
        ("LABEL=my disk", "/dev/disk/by-label/my\\x20disk"),
        ("LABEL='x'", "/dev/disk/by-label/x"),
        ("LABEL='x", "/dev/disk/by-label/\\x27x"),
        ("LABEL=a/b\\c", "/dev/disk/by-label/a\\x2fb\\x5cc"),
        ("LABEL=ä", "/dev/disk/by-label/ä"),
        ("LABEL=\udcff", "/dev/disk/by-label/\\xff"),
        ("LABEL=\ufdd0", "/dev/disk/by-label/\\xef\\xb7\\x90"),
        ("PARTUUID=1", "/dev/disk/by-partuuid/1"),
        ("PARTLABEL=p#1", "/dev/disk/by-partlabel/p#1"),
        ("LABEL=", ""),
        ('LABEL=""', ""),
        ("uuid=1", ""),
        ("ID=wwn-0x5", "/dev/disk/by-id/wwn-0x5"),
        ("/srv/image", ""),
        ("/dev", ""),
        ("server:/path", ""),
        ("tmpfs", ""),
        ("", ""),
    ],
)
def test_the_device_of_a_first_field(spec: str, device: str) -> None:
    assert named_device(spec) == device


@given(TEXTS)
def test_any_text_has_a_valid_unit_or_none(text: str) -> None:
    for unit in (unit_of_path("/" + text, "mount"), fsck_unit("/dev/" + text), device_unit(named_device(text) or "/x")):
        assert len(unit) <= MAX_UNIT_NAME_BYTES and set(unit) <= ALLOWED


@given(TEXTS)
def test_a_simplified_path_stays_as_it_is(text: str) -> None:
    once = simplified(text)
    assert simplified(once) == once and "//" not in once
