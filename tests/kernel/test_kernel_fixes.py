"""The code for single kernels, as it is compiled and run, whatever kernel is running. Needs root."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from pydbt.kernel import syscalls
from pydbt.kernel.btf import Btf
from pydbt.kernel.compiled import SOURCE, compile_programs, source_text
from pydbt.kernel.headers import find_headers
from pydbt.kernel.loaded import Loaded

PROGRAM = """
BPF_F_TABLE("array", u32, u64, pydbt_answer, 1, BPF_F_MMAPABLE);

int pydbt_find_head(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0;
	u64 *answer = pydbt_answer.lookup(&zero);

	if (answer)
		*answer = head_of(ctx->args[0], ctx->args[1]);
	return 0;
}
"""
PAGE = 0xFFFFEA0004000000  # a struct page, of a folio of 1 GiB that begins here
STRUCT_BYTES = 64
GIGANTIC_PAGES = 1 << 18


def heads(with_mask: bool, pairs: list[tuple[int, int]]) -> list[int]:
    """``head_of`` of each pair, by the kernel."""
    text = source_text(SOURCE.parent / "kernel_fixes.h") + PROGRAM
    macros = {"OFF_page_compound": 8, "COMPOUND_MASK": int(with_mask)}
    loaded = Loaded(Btf.of_running_kernel(), compile_programs(macros, find_headers(), text), {}, {}, text)
    with mmap.mmap(loaded.map_fd("answer"), mmap.PAGESIZE) as memory:
        try:
            found = []
            for page, compound in pairs:
                syscalls.run_program(loaded.untyped("find_head"), page, compound)
                found.append(int(np.frombuffer(memory[:8], np.uint64)[0]))
            return found
        finally:
            loaded.close()


@pytest.mark.parametrize("with_mask", [False, True])
def test_a_tail_page_that_has_its_heads_address_names_it(with_mask: bool) -> None:
    tails = [1, 2, 511, GIGANTIC_PAGES - 1]
    pairs = [(PAGE + at * STRUCT_BYTES, PAGE | 1) for at in tails]
    assert heads(with_mask, [*pairs, (PAGE, 0), (PAGE, 0xDEAD000000000100)]) == [PAGE] * (len(tails) + 2)


def test_a_tail_page_that_has_a_mask_names_its_head_by_it() -> None:
    pairs, expected = [], []
    for order in (1, 2, 4, 9, 18):
        mask = -(STRUCT_BYTES << order) & (1 << 64) - 1 | 1
        first = PAGE + (3 << 18) * STRUCT_BYTES
        for tail in {1, (1 << order) - 1}:
            pairs.append((first + tail * STRUCT_BYTES, mask))
            expected.append(first)
    assert heads(True, pairs) == expected
