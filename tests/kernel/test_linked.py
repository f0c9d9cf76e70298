"""Programs whose walks are the kernel's own loop: linked rightly, and accepted beside those that loop by themselves."""

from __future__ import annotations

import struct

import pytest

from pydbt.kernel import layout, pins
from pydbt.kernel.btf import Btf
from pydbt.kernel.compiled import compile_programs, numbered_steps, source_text
from pydbt.kernel.headers import find_headers
from pydbt.kernel.linked import link, numbers_in
from pydbt.kernel.loaded import Loaded
from pydbt.kernel.spec import CaptureOptions, VolumeSpec

ONE, TWO = 0x7079646274000001, 0x7079646274000002
NUMBERS = {ONE: "steps_one", TWO: "steps_two"}
EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)
ONE_CODE, TWO_CODE = EXIT * 3, EXIT * 2


def load(number: int, register: int = 2, source: int = 0) -> bytes:
    low, high = struct.unpack("<ii", struct.pack("<Q", number))
    return struct.pack("<BBhiBBhi", 0x18, register | source << 4, 0, low, 0, 0, 0, high)


def instruction(code: bytes, at: int) -> tuple[int, int, int, int]:
    return struct.unpack_from("<BBhi", code, at * 8)


def test_a_number_becomes_a_reference_to_the_function_behind_the_program() -> None:
    code = load(TWO) + EXIT + load(ONE, register=3) + load(TWO) + EXIT
    linked = link("main", code, NUMBERS, {"steps_one": ONE_CODE, "steps_two": TWO_CODE})
    assert linked.functions == ((0, "main"), (8, "steps_two"), (10, "steps_one"))
    assert linked.code[len(code) :] == TWO_CODE + ONE_CODE
    for at, register, function in ((0, 2, 8), (3, 3, 10), (5, 2, 8)):
        opcode, registers, _, distance = instruction(linked.code, at)
        assert (opcode, registers & 15, registers >> 4) == (0x18, register, 4), "BPF_PSEUDO_FUNC"
        assert at + 1 + distance == function
        assert instruction(linked.code, at + 1) == (0, 0, 0, 0)


def test_other_numbers_and_maps_stay_as_they_are() -> None:
    code = load(ONE + 100) + load(ONE, source=1) + EXIT
    assert numbers_in(code, NUMBERS) == []
    linked = link("main", code, NUMBERS, {})
    assert linked.code == code and linked.functions == ((0, "main"),)
    with pytest.raises(KeyError):
        link("main", load(ONE), NUMBERS, {})


def test_the_types_name_each_function_once() -> None:
    linked = link("main", load(ONE) + EXIT, NUMBERS, {"steps_one": ONE_CODE})
    types = linked.types()
    magic, version, _, header, type_at, type_bytes, text_at, text_bytes = struct.unpack_from("<HBBIIIII", types)
    assert (magic, version, header + text_at + text_bytes) == (0xEB9F, 1, len(types)) and not type_at
    assert text_at == type_bytes and types[header + text_at :].split(b"\0") == [b"", b"int", b"main", b"steps_one", b""]
    assert linked.function_information() == struct.pack("<IIII", 0, 3, 3, 4)


def test_each_function_that_the_programs_name_is_there() -> None:
    text = source_text()
    steps = numbered_steps(text)
    assert len(steps) == 3 and all(f"int {name}(" in text for name in steps.values())


def test_this_kernel_accepts_each_way_to_loop() -> None:
    """The others are for kernels without bpf_loop(), which this one may not be."""
    btf = Btf.of_running_kernel()
    volume, options = VolumeSpec(7, 0, 0, 1 << 20), CaptureOptions()
    values, sizes = layout.volume_values(volume, options), layout.map_sizes(volume, options)
    macros = layout.kernel_macros(btf) | layout.payload_macros(btf) | {"PYDBT_PAYLOAD": 1}
    ways = layout.step_macros(btf)
    assert [way["LOOP_HELPER"] for way in ways] == [1] + [0] * len(layout.STEP_BUDGETS)
    for way in ways[:2]:
        programs = Loaded(btf, compile_programs(macros | way, find_headers()), values, sizes)
        try:
            for name, tracepoint in pins.PROGRAMS.items():
                assert programs.typed(name, tracepoint) > 0
        finally:
            programs.close()
