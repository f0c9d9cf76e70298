"""Where the log is, and what tells it, is found on the volume, also when its bytes were made to mislead."""

from __future__ import annotations

import random

import pytest

from pydbt.core.transactions.jbd2_blocks import NotUnderstood
from pydbt.core.transactions.log_place import LogPlace, find_log
from tests.core.transactions.recorded import SAMPLES, Recorded
from tests.core.transactions.test_on_disk import Ext4Image
from tests.lab.file_system_logs import Jbd2Builder, XfsBuilder, with_xfs_sum

ALL = sorted(path.stem for path in SAMPLES.glob("*.sectors"))


def image_of(pieces: int = 1) -> Ext4Image:
    built = Jbd2Builder(1024, 400)
    image = Ext4Image(built, pieces=pieces)
    image.put((0, built.superblock()))
    return image


@pytest.mark.parametrize("name", ALL)
def test_the_log_of_a_volume_that_a_kernel_wrote_is_found(name: str) -> None:
    volume = Recorded(name)
    place = find_log(volume.read, volume.size_bytes)
    assert place.file_system == name.split("-")[0]
    for offset, content in place.watched:
        assert volume.read(offset, len(content)) == content
    assert place.on_volume(0, 1024)[0][0] == place.extents[0][0]
    assert not place.parser().has_footing


def test_a_log_in_pieces_is_on_the_volume_where_its_pieces_are() -> None:
    image = image_of(pieces=3)
    image.set(20 * 1024 + 12 + 12, "<IHHI", 133, 133, 0, 300)  # the second piece is elsewhere now
    image.set(20 * 1024 + 12 + 24, "<IHHI", 266, 134, 0, 24 + 133)
    place = find_log(image.read, len(image.content))
    assert place.extents == ((24 * 1024, 133 * 1024), (300 * 1024, 133 * 1024), (157 * 1024, 134 * 1024))
    assert place.on_volume(132 * 1024, 2048) == [(156 * 1024, 1024), (300 * 1024, 1024)]
    assert place.on_volume(399 * 1024, 4096) == [(290 * 1024, 1024)]


@pytest.mark.parametrize(
    ("first", "words"),
    [(1, "damaged"), (5, "damaged"), (24 + 40, "damaged"), (400, "damaged")],
    ids=["over its superblock", "over its inode", "over itself", "beyond the end"],
)
def test_a_log_that_lies_where_none_can_is_not_followed(first: int, words: str) -> None:
    image = image_of(pieces=3)
    image.set(20 * 1024 + 12 + 24, "<IHHI", 266, 134, 0, first)
    with pytest.raises(NotUnderstood, match=words):
        find_log(image.read, len(image.content))


def test_a_log_beyond_the_end_of_the_device_is_not_followed() -> None:
    image = image_of()
    with pytest.raises(NotUnderstood, match="beyond the end"):
        find_log(image.read, 300 * 1024)
    built = XfsBuilder()
    with pytest.raises(NotUnderstood, match="beyond the end"):
        find_log(lambda offset, length: built.superblock()[offset : offset + length], 64 * 1024)


def test_nothing_is_followed_without_a_known_file_system() -> None:
    with pytest.raises(NotUnderstood, match="no file system"):
        find_log(lambda offset, length: bytes(length), 1 << 20)
    with pytest.raises(NotUnderstood, match="beyond the end"):
        find_log(lambda offset, length: bytes(length), 1024)


def test_a_journal_that_is_longer_than_its_file_is_not_followed() -> None:
    image = image_of()
    image.put((0, Jbd2Builder(1024, 500).superblock()))
    with pytest.raises(NotUnderstood, match="longer than the file"):
        find_log(image.read, len(image.content))


def test_a_log_is_the_same_while_its_parser_may_go_on() -> None:
    def xfs(groups: int, uuid: bytes) -> LogPlace:
        block = bytearray(XfsBuilder().superblock())
        block[88:92], block[32:48] = groups.to_bytes(4, "big"), uuid
        with_xfs_sum(block)
        return find_log(lambda offset, length: bytes(block[offset : offset + length]).ljust(length, b"\0"), 1 << 30)

    one = xfs(2, b"1" * 16)
    assert one.is_same_log(xfs(3, b"1" * 16)), "it has grown"
    assert not one.is_same_log(xfs(2, b"2" * 16))
    image = image_of()
    other = find_log(image.read, len(image.content))
    assert other.is_same_log(other) and not other.is_same_log(one)


@pytest.mark.parametrize("seed", range(3))
def test_no_superblock_and_no_map_raise_anything_else(seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(300):
        image = image_of(pieces=3)
        for _ in range(generator.randrange(1, 5)):
            base = generator.choice((1024, image.inode, 20 * 1024, 24 * 1024, 2048))
            image.content[base + generator.randrange(256)] = generator.randrange(256)
        try:
            find_log(image.read, len(image.content)).parser()
        except NotUnderstood as why:
            assert str(why)
