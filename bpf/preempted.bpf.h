/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where a task can be preempted inside a program (Linux 7.0 and later; see
 * kernel_fixes.h). While it is, the kernel refuses that program to every other
 * task on its CPU. So a write is submitted through four programs, each of which
 * may be refused by itself, attached in this order:
 *
 *   pydbt_mark()	sets the bits, and clears what is left of an earlier write of
 *			the same bio. A short program: it is rarely preempted.
 *   pydbt_submit()	records the write, copies its data, and leaves a note.
 *   the understudy	is pydbt_submit() once more. It acts where there is no note.
 *   pydbt_witness()	takes the note away. Where there is none nobody has recorded
 *			the write: it sets the bits and counts a lost record.
 *
 * A note is a bio, in one of two places that its address gives: of pydbt_submit() and
 * of its understudy. Two bios of one place at the same time: the later one is not
 * recorded by the program whose place it is, and left to the next.
 *
 * What both the understudy and the witness are refused for has no record, and nobody
 * has counted it: at most as often as the one, and as the other, was refused at all.
 * As a last resort the write's completion is one of a write that nobody has seen
 * submitted (unloggable() in pydbt/core/primary/intake.py).
 *
 * A note is left behind when the witness is refused. The next write of the same bio
 * clears it, or has it for its own. It deceives only if pydbt_mark() and pydbt_submit()
 * are both refused for that one, which the completion tells as well. No other note is
 * left behind: config->apart is 0 until all programs are attached, then 1, and notes
 * are left. From 2 on every write that comes to the understudy and to the witness has
 * come to pydbt_submit() with 1.
 */

#define NOTE_BITS 9

struct pydbt_note {
	u64 taken;	/* by how many; it belongs to the one that found 0 */
	u64 bio;
};

BPF_TABLE("array", u32, struct pydbt_note, pydbt_notes, 2 << NOTE_BITS);

/* The verifier lets nobody reckon with an address whose type it knows; what comes out of a map is a number. */
static __always_inline u64 number_of(struct cpu_state *state, u64 address)
{
	*(volatile u64 *)&state->bio = address;
	return *(volatile u64 *)&state->bio;
}

/* `understudy`: 0 or 1, whose place. */
static __always_inline struct pydbt_note *note_of(u64 bio, u32 understudy)
{
	u32 index = (u32)(bio * 0x9E3779B97F4A7C15ULL >> (64 - NOTE_BITS)) | understudy << NOTE_BITS;

	return pydbt_notes.lookup(&index);
}

static __always_inline bool leave_note(u64 bio, u32 understudy)
{
	struct pydbt_note *note = note_of(bio, understudy);

	if (!note)
		return false;
	if (*(volatile u64 *)&note->bio == bio)
		return true;	/* left behind */
	if (fetch_and_add(&note->taken, 1)) {
		__sync_fetch_and_add(&note->taken, -1);
		return false;
	}
	*(volatile u64 *)&note->bio = bio;
	return true;
}

static __always_inline bool take_note_away(u64 bio, u32 understudy)
{
	struct pydbt_note *note = note_of(bio, understudy);

	if (!note || *(volatile u64 *)&note->bio != bio)
		return false;
	*(volatile u64 *)&note->bio = 0;
	__sync_fetch_and_add(&note->taken, -1);
	return true;
}

/* Whether pydbt_submit(), or its understudy, has to leave this write to another program. */
static __always_inline bool is_anothers(struct cpu_state *state, const struct pydbt_config *config, u64 address)
{
	u64 bio = number_of(state, address), apart = *(volatile u64 *)&config->apart;
	u32 understudy = VOLUME_VALUE(VALUE_UNDERSTUDY);

	if (understudy) {
		struct pydbt_note *note = note_of(bio, 0);

		if (apart < 2 || !note || *(volatile u64 *)&note->bio == bio)
			return true;
	}
	return apart && !leave_note(bio, understudy);
}

/* Set the bits of a write and count it; false when it has no part in the volume. */
static __always_inline bool mark_bio(struct cpu_state *state, const struct pydbt_config *config, u64 address,
				     u32 bytes, u32 op)
{
	struct extent extent;

	if (!clip(&extent, LOAD64(address, OFF_bio_bi_sector), bytes))
		return false;
	account(&state->counters, &extent, op);
	mark(config->active, &extent);
	return true;
}

int pydbt_mark(struct bpf_raw_tracepoint_args *ctx)
{
	u64 address = ctx->args[ARG_block_bio_queue_bio], bio;
	struct pydbt_config *config;
	struct cpu_state *state;
	u32 key = PYDBT_PROGRAM_MARK, zero = 0, opf, op, bytes;

	opf = LOAD32(address, OFF_bio_bi_opf);
	op = opf & OP_MASK;
	if (!(op & 1) || !our_bio(LOAD64(address, OFF_bio_bi_bdev)))
		return 0;
	state = pydbt_state.lookup(&key);
	config = pydbt_config.lookup(&zero);
	if (!state || !config)
		return 0;
	bio = number_of(state, address);
	take_note_away(bio, 0);
	take_note_away(bio, 1);
	bytes = LOAD32(address, OFF_bio_bi_size);
	if (bytes)
		mark_bio(state, config, address, bytes, op);
	else if (!(opf & ((1U << BIT_FUA) | (1U << BIT_PREFLUSH))) && !is_harmless_op(op))
		state->counters.unknown_ops++;
	return 0;
}

int pydbt_witness(struct bpf_raw_tracepoint_args *ctx)
{
	u64 address = ctx->args[ARG_block_bio_queue_bio], bio;
	struct pydbt_config *config;
	struct cpu_state *state;
	u32 key = PYDBT_PROGRAM_WITNESS, zero = 0, opf, op, bytes;

	opf = LOAD32(address, OFF_bio_bi_opf);
	op = opf & OP_MASK;
	if (!(op & 1) || !our_bio(LOAD64(address, OFF_bio_bi_bdev)))
		return 0;
	state = pydbt_state.lookup(&key);
	config = pydbt_config.lookup(&zero);
	if (!state || !config)
		return 0;
	bio = number_of(state, address);
	if (take_note_away(bio, 0) | take_note_away(bio, 1) || *(volatile u64 *)&config->apart < 2)
		return 0;
	bytes = LOAD32(address, OFF_bio_bi_size);
	if (bytes ? !mark_bio(state, config, address, bytes, op) : !(opf & ((1U << BIT_FUA) | (1U << BIT_PREFLUSH))))
		return 0;
	state->counters.lost += config->records != 0;
	return 0;
}
