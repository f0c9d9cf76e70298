/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Kernel differences, newest first: each is probed through BTF or by trying,
 * never through a version. What is chosen where is in brackets. There is no
 * code here as long as macros from BTF are enough; a kernel that needs code gets
 * it here.
 *
 * enum req_op's numbers differ (REQ_OP_ZONE_RESET is 15 on 6.1 and 17 on 6.18):
 * taken from BTF, not from headers. [layout.py]
 *
 * struct folio's page count is _nr_pages (seen on 6.18), _folio_nr_pages (seen
 * on 6.1); before, compound_nr of the second struct page has it (seen on 5.15 and
 * 6.0). [layout.py]
 *
 * The verifier: 6.1 refuses a way back to a loop's head that falls through
 * instead of jumping ("back-edge from insn"), 6.18 does not; and it needs more of
 * its million instructions for the same loops. [LOOP, HEAD; STEP_BUDGETS]
 *
 * LLVM 20 refuses the value of __sync_fetch_and_add() for the CPU that bcc
 * compiles for ("Invalid usage of the XADD return value",
 * llvm/llvm-project#106494), and LLVM 14 does not know the assembler's line.
 * [fetch_and_add()]
 *
 * v7.3: bvec_iter.bi_bvec_done became bi_offset. Bios whose data is a DMA buffer
 * and no pages (BIO_DMABUF_MAP) are not copied. [layout.py; has_no_pages()]
 *
 * v7.2: a bio of a buffer ends in a function of the buffer's owner, where before one
 * function ended all of them and called buffer_head.b_end_io.
 * [is_buffer() in payload.bpf.h, is_journal() in writers.bpf.c]
 *
 * v7.1, fc3f334ce2b9 and d6746190bbf3: page.compound_head became compound_info,
 * which may hold a mask. [head_of()]
 *
 * v7.0, a46023d5616e and f7d327654b88: a task can be preempted inside a program.
 * [preempted.bpf.h; can_be_preempted() in layout.py]
 *
 * v6.15 and stable kernels of 2025, f2fed441c69b ("loop: stop using
 * vfs_iter_{read,write} for buffered I/O"): a loop device takes a write for done of
 * which its file took only a part, as it did with direct I/O since v4.4.
 * [short_of_a_file(); loop_command() in layout.py]
 *
 * v6.0, ff07a02e9e8e ("treewide: Rename enum req_opf into enum req_op").
 * [layout.py]
 *
 * v5.17, e6f2dd0f8067 ("bpf: Add bpf_loop helper"): walks over pieces and pages
 * are the kernel's own loop, of which the verifier follows one step. Before, and
 * where the code is not compiled by the kernel (bpf_jit_enable=0), the programs
 * loop by themselves. [LOOP_HELPER; pydbt/kernel/linked.py]
 *
 * v5.17, f3fa33acca9f ("block: remove the ->rq_disk field in struct request"),
 * after d152c682f03c ("block: add an explicit ->disk backpointer to the
 * request_queue"): the disk is found through the queue. [our_request()]
 *
 * a54895fa057c ("block: remove the request_queue to argument request based
 * tracepoints") and, in the same series, e8a676d61c07 ("block: simplify and
 * extend the block_bio_merge tracepoint class", which block_bio_queue belongs
 * to): arguments lost their request_queue. block_bio_complete kept it. [ARG_*]
 *
 * v5.5: raw tracepoint programs whose arguments have types (BPF_TRACE_RAW_TP).
 * [LOAD; pydbt/kernel/compiled.py]
 *
 * Who may interrupt a program. Raw tracepoint programs run in __bpf_trace_run()
 * (kernel/trace/bpf_trace.c), which refuses a program that is active on this CPU
 * already and counts that in recursion_misses. Until v6.19 it asserts cant_sleep().
 * From v7.0 on only migration is off: while a task is preempted inside a program,
 * the kernel refuses the same program to all other tasks on that CPU. Seen on 7.0
 * and 7.3, at submission alone: completions run in softirqs (ftrace shows on 6.18:
 * over tasks and over ksoftirqd alike). bpf_preempt_disable() in the program makes
 * it worse: the scheduler then runs where preemption is enabled again, with the
 * program still active.
 *
 * A kernel was met (6.18, not a distribution's) where no BPF program at all ran
 * for completions in a softirq over one particular system task, while ftrace saw
 * those events, and nothing was counted: about one in 10,000 under load. Why is
 * not known.
 * Nothing in these programs can see that. The disk's own statistics do: see the
 * audit in the design, and wait_quiet() in tests/lab/tracking.py.
 */

/* Add to a counter that other CPUs add to, and return what it was before. For LLVM 20 see above. */
static __always_inline u64 fetch_and_add(u64 *counter, u64 value)
{
#if __clang_major__ >= 20
	asm volatile("%0 = atomic_fetch_add((u64 *)(%1 + 0), %0)" : "+r"(value) : "r"(counter) : "memory");
	return value;
#else
	return __sync_fetch_and_add(counter, value);
#endif
}

#ifdef OFF_page_compound
/* The address of the first page of the folio that a page belongs to; `compound` is
 * what the page's own struct has there. The lowest bit tells a tail page. A first
 * page lies before its tails; the mask, nearly all ones, is a larger number than
 * any address of a struct page. */
static __always_inline u64 head_of(u64 page, u64 compound)
{
	u64 tail = compound & 1;

#if COMPOUND_MASK
	if (tail && compound > page)
		return page & compound;
#endif
	return tail ? compound - 1 : page;
}
#endif
