/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Programs that only the loader runs, before capture is attached, to find where
 * the direct map is and to prove it (pydbt/kernel/addresses.py).
 */

struct pydbt_probe {
	u64 answer;	/* a kernel address that was asked for */
	u64 task;	/* an object in the direct map */
	u64 reads;	/* bios of the loader's own reads seen so far */
	u64 page;	/* struct page of the last one's buffer */
	u64 offset;
	u64 failed;
	u64 process;	/* of the loader, as the kernel itself numbers it */
	u64 bytes[8];
};

BPF_F_TABLE("array", u32, struct pydbt_probe, pydbt_probe, 1, BPF_F_MMAPABLE);

/* See the loader's own read: which struct page is the buffer? */
int pydbt_see_read(struct bpf_raw_tracepoint_args *ctx)
{
	u64 address = ctx->args[ARG_block_bio_queue_bio];
	u64 bio[BIO_COPY_WORDS], vector[2];
	struct pydbt_probe *probe;
	u32 zero = 0;

	probe = pydbt_probe.lookup(&zero);
	if (!probe || bpf_get_current_pid_tgid() >> 32 != probe->process)
		return 0;
	if (read_kernel(bio, SIZE_bio_copy, address + OFF_bio_copy) ||
	    FIELD32(bio, BIO_AT(bi_opf)) & OP_MASK || !our_bio(LOAD64(address, OFF_bio_bi_bdev)) ||
	    read_kernel(vector, SIZE_bio_vec, FIELD64(bio, BIO_AT(bi_io_vec)) +
			(u64)FIELD32(bio, BIO_AT(bi_idx)) * SIZE_bio_vec))
		return 0;
	probe->page = FIELD64(vector, OFF_bio_vec_bv_page);
	probe->offset = FIELD32(vector, OFF_bio_vec_bv_offset);
	probe->task = (u64)bpf_get_current_task();
	probe->reads++;
	return 0;
}

/* Run by hand: read 64 bytes at the address given, and note who runs it: in a PID namespace the loader has another number. */
int pydbt_read(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0;
	struct pydbt_probe *probe = pydbt_probe.lookup(&zero);

	if (!probe)
		return 0;
	probe->process = bpf_get_current_pid_tgid() >> 32;
	probe->failed = !!bpf_probe_read_kernel(probe->bytes, sizeof(probe->bytes), (void *)ctx->args[0]);
	return 0;
}

/* Run by hand: where in the kernel is the data ring's first slot? */
int pydbt_ring_base(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0;
	struct pydbt_probe *probe = pydbt_probe.lookup(&zero);
	void *slot;

	if (!probe)
		return 0;
	slot = pydbt_data.ringbuf_reserve(8);
	if (!slot)
		return 0;
	probe->answer = (u64)slot;
	pydbt_data.ringbuf_discard(slot, BPF_RB_NO_WAKEUP);
	return 0;
}
