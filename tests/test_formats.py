"""The tables of docs/reference/format.md are those of the code: layouts, versions, kinds, keys, limits. Neither changes alone."""

from __future__ import annotations

import ast
import re
import struct
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pydbt.core.blocks.sector_table import EXTENT_DTYPE, ExtentKind
from pydbt.core.protocol import (
    completed,
    frames,
    mark,
    peer_identity,
    refusals,
    stream_times,
    unit_rows,
    wire,
    wire_json,
)
from pydbt.core.protocol.frames import FrameKind
from pydbt.core.protocol.generations import BITMAP_LIMIT, HISTORY_LIMIT
from pydbt.core.protocol.layout import Layout
from pydbt.core.protocol.role import ASKS_ROLE
from pydbt.core.secondary import journal, replica
from pydbt.core.secondary.brain import ACK_INTERVAL_S
from pydbt.core.seen import history
from pydbt.core.units import MAX_COMPARED_BYTES, MIB, MIN_BLOCK_BYTES
from pydbt.kernel import pins
from pydbt.network.connection import SILENCE_S
from pydbt.store import intent_file, map_file, map_image, reached, volume_state
from pydbt.store.secondary_record import SecondaryRecord

PROJECT = Path(__file__).resolve().parent.parent
(DOCUMENT,) = (PROJECT / "docs").rglob("format.md")
TEXT = DOCUMENT.read_text()
Row = dict[str, str]


def sections() -> dict[str, str]:
    parts = re.split(r"^##+ (.+)$", TEXT, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def section(beginning: str) -> str:
    (found,) = [text for title, text in sections().items() if title.startswith(beginning)]
    return found


def tables(text: str) -> list[list[Row]]:
    """The Markdown tables of a text, each row by its columns."""
    found: list[list[Row]] = []
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def places(table: list[Row]) -> list[tuple[int, int, str]]:
    """(offset, size, field) of every row that has a size."""
    return [(int(row["offset"]), int(row["size"]), row["field"]) for row in table if row["size"]]


def laid_out(*layouts: Layout, digest: bool = False) -> list[tuple[int, int, str]]:
    found, offset = [], 0
    for layout in layouts:
        for name, code in layout.codes.items():
            found.append((offset, struct.calcsize("<" + code), name))
            offset += struct.calcsize("<" + code)
    return [*found, (offset, 16, "digest")] if digest else found


def columns(dtype: np.dtype[np.void]) -> list[tuple[int, int, str]]:
    assert dtype.names is not None and dtype.fields is not None
    return [(dtype.fields[name][1], dtype.fields[name][0].itemsize, name) for name in dtype.names]


def meaning(table: list[Row], field: str) -> str:
    (row,) = [row for row in table if row["field"] == field]
    return row["meaning"]


def named_numbers(text: str) -> dict[int, str]:
    """``1 DATA, 2 ZERO (...)`` as a dictionary."""
    return {int(number): name for number, name in re.findall(r"(\d+) ([A-Z]+)\b", text)}


WIRE = section("The wire, protocol")
HEADER, KINDS = tables(WIRE)
(ACK,) = tables(section("The conversation"))
(RECORD,) = tables(section("The secondary's journal"))


def test_rows_of_sectors_and_of_units_are_laid_out_as_documented() -> None:
    extents, units = tables(section("Extents"))
    assert places(extents) == columns(EXTENT_DTYPE)
    assert places(units) == columns(unit_rows.UNIT_ROW_DTYPE)
    assert named_numbers(meaning(extents, "kind")) == {kind.value: kind.name for kind in ExtentKind}
    assert meaning(units, "kind") == str(unit_rows.PLAIN)


def test_a_frame_s_header_is_laid_out_as_documented() -> None:
    assert places(HEADER) == laid_out(wire._HEADER, digest=True)
    assert sum(size for _, size, _ in places(HEADER)) == wire.FRAME_HEADER_BYTES
    assert f"a header of {wire.FRAME_HEADER_BYTES} bytes" in WIRE
    assert meaning(HEADER, "magic") == f"`{wire.FRAME_MAGIC.decode()}`"
    assert meaning(HEADER, "version") == str(wire.FRAME_VERSION)


def test_the_protocol_s_version_is_the_documented_one() -> None:
    assert f"The wire, protocol {frames.PROTOCOL_VERSION}" in sections()
    assert f"that of the conversation ({frames.PROTOCOL_VERSION})" in WIRE
    assert f"the layout of frames ({wire.FRAME_VERSION})" in WIRE


def test_the_kinds_of_frames_are_the_documented_ones() -> None:
    assert {int(row["kind"]): row["name"] for row in KINDS} == {kind.value: kind.name for kind in FrameKind}
    assert all((row["from"] == "primary") == (int(row["kind"]) < 64) for row in KINDS)


BODIES = {
    FrameKind.BEGIN: wire._BEGIN, FrameKind.BLOCKS: wire._BLOCKS, FrameKind.DIGESTS: wire._DIGESTS,
    FrameKind.STREAM: wire._STREAM, FrameKind.COMMIT: wire._COMMIT, FrameKind.PING: wire._PING,
    FrameKind.WANT: wire._WANT, FrameKind.PONG: wire._PONG, FrameKind.UNWRITABLE: wire._UNWRITABLE,
    FrameKind.RECALL: wire._RECALL, FrameKind.RECENT: wire._RECENT,
}  # fmt: skip
JSON_KINDS = {FrameKind[kind.__name__.upper()]: kind for kind in wire_json._KEYS}


def row_of(kind: FrameKind) -> Row:
    return next(row for row in KINDS if row["name"] == kind.name)


def test_every_kind_of_body_is_compared_with_its_row() -> None:
    assert {*BODIES, *JSON_KINDS, FrameKind.ACK, FrameKind.COMPLETED, FrameKind.MARK} == set(FrameKind)


@pytest.mark.parametrize("kind", BODIES)
def test_a_packed_body_is_laid_out_as_documented(kind: FrameKind) -> None:
    documented = [
        ("reserved" if name == "0" else name, int(bits) // 8)
        for name, bits in re.findall(r"(\w+) u(\d+)", row_of(kind)["body"])
    ]
    assert documented == [(name, size) for _, size, name in laid_out(BODIES[kind])]


def test_the_date_of_a_ping_is_laid_out_as_documented() -> None:
    text = next(
        line for line in section("Features").splitlines() if line.startswith(f"| `{frames.DATED_PINGS}` | WELCOME |")
    )
    assert [(name, int(bits) // 8) for name, bits in re.findall(r"(\w+) u(\d+)", text)] == [
        (name, size) for _, size, name in laid_out(wire._PING_DATE)
    ]


@pytest.mark.parametrize("kind", JSON_KINDS)
def test_a_json_body_has_the_documented_keys(kind: FrameKind) -> None:
    text = row_of(kind)["body"].removeprefix("JSON: ")
    documented = re.sub(r"\(.*?\)|and | if HELLO asks for (?:it|them)", "", text).replace(" ", "").split(",")
    keys = wire_json._KEYS[JSON_KINDS[kind]] | wire_json._OPTIONAL.get(JSON_KINDS[kind], {})
    assert sorted(documented) == sorted(keys)


def test_an_ack_is_laid_out_as_documented() -> None:
    assert places(ACK) == laid_out(wire._ACK, wire._PROGRESS)
    assert row_of(FrameKind.ACK)["limits"].startswith(f"{wire._ACK.size}, or {wire._ACK.size + wire._PROGRESS.size} ")
    states = ", ".join(f"{code} {name}" for code, name in enumerate(frames.REPLICA_STATE_NAMES))
    assert f"`replica_state`: {states}." in WIRE


def test_times_marks_and_completed_transactions_are_laid_out_as_documented() -> None:
    (times,), (of_a_mark,), (rows,) = (
        tables(section(title)) for title in ("Times", "Marks", "Transactions that have completed")
    )
    assert places(times) == [*laid_out(stream_times.CLOCK), (stream_times.CLOCK.size, 8, "submitted_ns")]
    assert f"at most {stream_times.MAX_TIMES:,}\nsequences and {stream_times.MAX_TIMED_EXTENTS:,} extents" in section(
        "Times"
    )
    assert places(of_a_mark) == laid_out(mark.MARK)
    assert f"1 to {mark.MAX_NAME_BYTES}" in meaning(of_a_mark, "name_bytes")
    assert row_of(FrameKind.MARK)["limits"] == str(mark.MAX_MARK_BYTES)
    assert places(rows) == columns(completed.COMPLETED_DTYPE)
    assert f"A row, {completed.COMPLETED_DTYPE.itemsize} bytes" in section("Transactions that have completed")
    assert row_of(FrameKind.COMPLETED)["limits"] == f"{completed.MAX_COMPLETED:,} rows"
    kinds = {kind.value: kind.name for kind in completed.LoggedFileSystem}
    told = re.findall(r"(\d+) (\w+)", meaning(rows, "file_system"))
    assert {int(number): name.upper() for number, name in told} == kinds
    assert (
        wire._STREAM.size + stream_times.MAX_TIMED_EXTENTS * EXTENT_DTYPE.itemsize
        + stream_times.times_bytes(stream_times.MAX_TIMES) + frames.MAX_PAYLOAD_BYTES
    ) <= wire.MAX_BODY_BYTES  # fmt: skip


def test_the_limits_of_bodies_are_the_documented_ones() -> None:
    for kind in JSON_KINDS:
        assert row_of(kind)["limits"] == f"{wire.MAX_JSON_BYTES // 1024} KiB"
    for kind in (FrameKind.BEGIN, FrameKind.COMMIT, FrameKind.PONG, FrameKind.RECALL):
        assert row_of(kind)["limits"] == str(BODIES[kind].size)
    with_date = wire._PING.size + wire._PING_DATE.size
    assert row_of(FrameKind.PING)["limits"] == f"{wire._PING.size}, or {with_date} with its date"
    assert row_of(FrameKind.BLOCKS)["limits"] == (
        f"{wire.MAX_BODY_BYTES // MIB} MiB; {frames.MAX_EXTENTS:,} extents; {frames.MAX_PAYLOAD_BYTES // MIB} MiB of payload"
    )
    assert row_of(FrameKind.STREAM)["limits"] == f"as BLOCKS; {frames.MAX_SEQUENCE_SPAN:,} sequences"
    units = f"{unit_rows.MAX_DIGESTS:,} units"
    for kind in (FrameKind.WANT, FrameKind.UNWRITABLE, FrameKind.RECENT):
        assert row_of(kind)["limits"] == units
    assert row_of(FrameKind.DIGESTS)["limits"].startswith(
        f"{units} of {MIN_BLOCK_BYTES} to {MAX_COMPARED_BYTES:,} bytes, a power of two"
    )
    assert f"a digest of {frames.DIGEST_BYTES} bytes per unit" in row_of(FrameKind.DIGESTS)["body"]
    assert f"most {BITMAP_LIMIT} and {HISTORY_LIMIT}" in WIRE.replace("\n", " ")


def test_a_record_of_the_journal_is_laid_out_as_documented() -> None:
    assert places(RECORD) == laid_out(journal._HEADER, digest=True)
    assert RECORD[-1]["field"] == "body" and int(RECORD[-1]["offset"]) == journal.RECORD_HEADER_BYTES
    assert meaning(RECORD, "magic") == f"`{journal.JOURNAL_MAGIC.decode()}`"
    assert meaning(RECORD, "version") == str(journal.JOURNAL_VERSION)
    assert named_numbers(meaning(RECORD, "kind")) == {kind.value: kind.name for kind in journal.JournalRecordKind}
    assert f"multiples of {journal.RECORD_ALIGN}." in section("The secondary's journal")
    assert f"{journal.RECORD_ALIGN} bytes are zeroed" in section("The secondary's journal")


def test_the_flags_of_a_begin_are_the_documented_ones() -> None:
    (told,) = re.findall(r"flags u32 \((.*?)\)", row_of(FrameKind.BEGIN)["body"])
    documented = {int(value): words for value, words in re.findall(r"(\d+) ([^,]+)", told)}
    assert documented.keys() == {flag.value for flag in frames.BeginFlag}
    for flag in frames.BeginFlag:
        assert documented[flag.value].lower().startswith(flag.name.lower().replace("_", " "))


def constants(module: ModuleType) -> dict[str, str]:
    return {name: value for name, value in vars(module).items() if isinstance(value, str) and name.isupper()}


def test_the_features_of_hello_and_welcome_are_the_documented_ones() -> None:
    (table,) = tables(section("Features"))
    for frame, features in (
        ("HELLO", (*frames.HELLO_FEATURES, frames.BOOT, ASKS_ROLE)),
        ("WELCOME", frames.WELCOME_FEATURES),
    ):
        assert sorted(row["feature"].strip("`") for row in table if frame in row["of"].split(", ")) == sorted(features)


CODES_BY_NAME = constants(frames) | constants(peer_identity)


def refusals_of_the_code() -> Iterator[str]:
    """The code of every REFUSE that is made: where one is packed, where a failure is told, and of two histories."""
    for path in (PROJECT / "pydbt").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=arguments):
                    place = {"Refuse": 0, "failed": 0, "_refuse": 1, "PeerObjection": 0}.get(called)
                    told = [] if place is None else arguments[place : place + 1]
                case ast.FunctionDef(name="objection"):
                    told = [pair.elts[0] for pair in ast.walk(node) if isinstance(pair, ast.Tuple)]
                case _:
                    continue
            for one in told:
                match one:
                    case ast.Constant(value=str(code)):
                        yield code
                    case ast.Name(id=name) | ast.Attribute(attr=name) if name in CODES_BY_NAME:
                        yield CODES_BY_NAME[name]


def test_the_codes_of_refusals_are_the_documented_ones() -> None:
    text = section("The conversation")
    (told,) = re.findall(r"^REFUSE codes: (.*?\.)", text, re.MULTILINE | re.DOTALL)
    (of_identities,) = re.findall(r"the\s+peer of this volume: (.*?\.)", text, re.DOTALL)
    of_content = re.findall(r"`([a-z-]+)`", told)
    assert sorted(re.findall(r"`([a-z-]+)`", of_identities)) == sorted(peer_identity.IDENTITY_REFUSALS)
    assert {*of_content, *peer_identity.IDENTITY_REFUSALS} == set(refusals_of_the_code())
    assert not set(of_content) & peer_identity.IDENTITY_REFUSALS and len(of_content) == len(set(of_content))
    assert set(of_content) >= refusals.FATAL_REFUSALS


def test_the_document_has_the_intervals_of_acknowledgement_and_of_silence() -> None:
    text = " ".join(section("The conversation").split())
    assert f"The secondary sends something at least every {ACK_INTERVAL_S:g} seconds." in text
    assert f"A side that hears nothing for {SILENCE_S:g} seconds closes the connection." in text


def documented_keys(table: list[Row]) -> Iterator[str]:
    for row in table:
        yield from row["key"].split(", ")


def test_the_keys_of_a_replica_s_state_file_are_the_documented_ones() -> None:
    (table,) = tables(section("The replica's state file"))
    assert sorted(documented_keys(table)) == sorted(field.name for field in fields(replica.ReplicaRecord))
    assert {row["key"]: row["meaning"] for row in table}["version"] == str(replica.RECORD_VERSION)
    optional = {row["key"] for row in table if "May be missing" in row["meaning"]}
    assert optional == replica._LATER


def test_the_keys_of_a_volume_s_state_file_are_the_documented_ones() -> None:
    volume, secondary = tables(section("The volume's state file"))
    own = {field.name for field in fields(volume_state.VolumeState)}
    assert set(documented_keys(volume)) == own | {"format", "version"}
    assert {row["key"]: row["meaning"] for row in volume}["format, version"] == (
        f"`{volume_state._FORMAT}`, {volume_state._VERSION}"
    )
    assert sorted(documented_keys(secondary)) == sorted(field.name for field in fields(SecondaryRecord))


@pytest.mark.parametrize("module", [map_file, map_image, intent_file])
def test_a_map_s_header_is_laid_out_as_its_module_tells(module: object) -> None:
    """The table at the head of the module; fields of the header come one after the other."""
    head = str(module.__doc__).split("======  =======")[2]
    rows = [(int(at), int(size), text) for at, size, text in re.findall(r"^(\d+) +(\d+) {2,}(.+)$", head, re.MULTILINE)]
    sizes = _sizes(module._HEADER.format)
    assert [size for _, size, _ in rows] == sizes
    assert [at for at, _, _ in rows] == [sum(sizes[:place]) for place in range(len(sizes))]
    assert rows[0][2] == f"magic ``{module._MAGIC[:-1].decode()}`` and a zero byte"
    assert rows[1][2] == f"version, {module._VERSION}"
    assert rows[2][2] == f"bytes of this header, {module._HEADER.size}"


def test_the_mark_of_a_map_is_laid_out_as_its_module_tells() -> None:
    told = " ".join(str(map_file.__doc__).split("Then the mark,")[1].split("\n\n")[0].split())
    magic = f"magic ``{map_file._MARK_MAGIC[:-1].decode()}`` and a zero byte"
    assert f"{magic}, u64 number of a change, its digest, and the digest of these 32 bytes." in told
    assert _sizes(map_file._MARK.format) == [8, 8, 16, 16] and sum([8, 8, 16]) == 32
    assert f"padded with zeroes to {map_file.CHANGES_OFFSET - map_file.MARK_OFFSET} bytes" in told
    assert f"the header, padded with zeroes to {map_file.MARK_OFFSET} bytes" in str(map_file.__doc__)


def test_a_change_of_a_map_is_laid_out_as_its_module_tells() -> None:
    table = str(map_file.__doc__).split("======  =======")[5]
    rows = [
        (int(at), int(size), text) for at, size, text in re.findall(r"^(\d+) +(\d+) {2,}(.+)$", table, re.MULTILINE)
    ]
    sizes = _sizes(map_file._CHANGE.format)
    assert [size for _, size, _ in rows] == sizes
    assert [at for at, _, _ in rows] == [sum(sizes[:place]) for place in range(len(sizes))]
    assert rows[0][2] == f"magic ``{map_file._CHANGE_MAGIC[:-1].decode()}`` and a zero byte"
    assert rows[-1][2] == f"digest of the {map_file._CHANGE.size - 16} bytes before it, and of the n rows behind it"
    ((at, size, words),) = re.findall(r"^(\d+) +(\d+) n +rows: (.+)$", table, re.MULTILINE)
    assert (int(at), int(size)) == (map_file._CHANGE.size, map_file._ROW.itemsize)
    assert [name for name in ("index", "kind", "digest") if name in words] == list(map_file._ROW.names or ())
    ((size,),) = [re.findall(r"^\.\.\. +(\d+) k ", table, re.MULTILINE)]
    assert int(size) == map_file.CHUNK_BYTES


def test_the_rows_behind_the_header_of_a_map_in_one_piece_are_those_that_its_module_tells() -> None:
    table = str(map_image.__doc__).split("======  =======")[2]
    assert re.findall(r"^(\d+) +4 n +index of each small map, ascending$", table, re.MULTILINE) == [
        str(map_image._HEADER.size)
    ]
    assert re.findall(r"^\.\.\. +(\d+) n ", table, re.MULTILINE) == [str(map_image.CHUNK_BYTES)]
    assert re.findall(r"^end-(\d+) +(\d+) ", table, re.MULTILINE) == [(str(map_image._DIGEST_BYTES),) * 2]


def _sizes(code: str) -> list[int]:
    """The size of each number and text of a struct."""
    return [struct.calcsize("<" + one) for one in re.findall(r"\d*[a-zA-Z]", _expanded(code))]


def _expanded(code: str) -> str:
    """``II`` for ``2I``: one code per number; texts and padding keep their length."""
    return re.sub(r"(\d+)([IQHB])", lambda match: match[2] * int(match[1]), code)


def test_the_file_that_tells_how_far_the_journal_reached_is_laid_out_as_documented() -> None:
    name = reached._MAGIC[:-1].decode()
    assert reached._CONTENT.size == 8 + 8 and reached._BYTES == 32
    assert f"`{name}` and a zero byte, position u64, xxh3_128 of both" in section("The replica's state file")
    assert f"``{reached.REACHED_FILE_NAME}``, {reached._BYTES} bytes: magic ``{name}`` and a zero byte" in str(
        reached.__doc__
    )


def test_every_pinned_object_is_documented() -> None:
    text = " ".join(section("What is pinned").split())
    (maps, optional) = re.findall(r"the maps (.*?), and `(\w+)` if", text)[0]
    assert re.findall(r"`(\w+)`", maps) == list(pins.MAPS) and optional == pins.DATA_MAP
    for entry, fields_of_all_versions in (("volume", pins.VOLUME_FIELDS), ("layout", pins.LAYOUT_FIELDS)):
        (keys,) = re.findall(rf"`{entry}` \((.*?)[:)]", text)
        assert tuple(re.findall(r"`(\w+)`", keys)) == fields_of_all_versions


def test_the_history_is_laid_out_as_documented() -> None:
    text = section("The history")
    header, row, event = tables(text)
    assert places(header) == laid_out(history.HISTORY_HEADER)
    assert places(row) == columns(history.HISTORY_ROW)
    *fixed, last = places(event)
    assert fixed == laid_out(history.HISTORY_EVENT)
    assert last == (history.HISTORY_EVENT.size, history.TEXT_BYTES_MAX, "text")
    assert history.HISTORY_EVENT.size + history.TEXT_BYTES_MAX == history.EVENT_BYTES
    magic, *numbers = history.HISTORY_HEADER.unpack(history.history_header())
    assert magic == b"PDBHIST\0" and [int(one["meaning"]) for one in header[1:-1]] == numbers[:-1]
    assert named_numbers(meaning(event, "kind")) == {kind.value: kind.name for kind in history.EntryKind}
    assert re.findall(r"(\d+) rows of (\d+) s", text) == [(str(tier.rows), str(tier.step_s)) for tier in history.TIERS]
    assert f"at most {history.FILE_BYTES:,} bytes" in text and f"modulo {history.EVENT_SLOTS}" in text
    assert f"0 up to byte {history.ROWS_OFFSET}" in text
    (named,) = re.findall(r"The columns are (.*?)\.\n", text, re.DOTALL)
    assert re.findall(r"`(\w+)`", named) == list(history.COLUMNS)
