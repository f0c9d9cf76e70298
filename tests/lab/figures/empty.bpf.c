/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A program that does nothing: its run time is that of counting run times. */
BPF_TABLE("array", u32, u64, pydbt_nothing, 1);

int pydbt_empty(struct bpf_raw_tracepoint_args *ctx)
{
	return 0;
}
