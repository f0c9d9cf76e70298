/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Capture: every write of one volume, at submission and at completion.
 *
 * Compiled by pydbt/kernel/compiled.py once for a kernel, with -D from layout.py:
 *   ARG_*, OFF_*, SIZE_*, OP_*, BIT_*, PG_*	the running kernel, from its own BTF
 *   PYDBT_PAYLOAD, LOOP_HELPER, *_STEPS
 *   MARK_APART			1: a task can be preempted inside a program
 * What differs between volumes comes in when the code is loaded: VALUE_*.
 *
 * The order inside a program is the promise:
 *   1. the bits, with an atomic OR, before anything that can fail;
 *   2. the place of the record in the ordered ring;
 *   3. the payload;
 *   4. the record is let go.
 * So a bit is set whenever a record exists, a lost record is counted and its
 * bit is still there, and the ring's order is the order of step 2.
 *
 * What can interrupt what. No second task can be inside the same program on the
 * same CPU (see kernel_fixes.h); an interrupt can, and then a *different* program
 * finds its own scratch, while the same one is refused by the kernel and counted
 * in recursion_misses, which the controller reads as loss. Where a task can be
 * preempted inside a program, three more stand beside pydbt_submit():
 * preempted.bpf.h.
 */

#include "record.h"
#include "kernel_fixes.h"

#define TEXT_OF(number) #number
#define NUMBER_LOADED(number) "%0 = " TEXT_OF(number) " ll"

/* The one volume that the loaded programs serve. Here each of its values is a
 * number that stands for it; pydbt/kernel/loaded.py puts the value in its place
 * before the verifier sees it, to whom it is a constant. */
#define VALUE_DISK_NUMBER		0x7079646276000001	/* as in block_device.bd_dev */
#define VALUE_DISK_MAJOR		0x7079646276000002
#define VALUE_DISK_MINOR		0x7079646276000003
#define VALUE_VOLUME_START		0x7079646276000004	/* sectors of the disk */
#define VALUE_VOLUME_END		0x7079646276000005
#define VALUE_BLOCK_SHIFT_SECTORS	0x7079646276000006	/* log2 of a block's sectors */
#define VALUE_LEVEL1_WORDS		0x7079646276000007	/* of a bitmap */
#define VALUE_MAP_WORDS			0x7079646276000008
#define VALUE_HEADER_RECORDS		0x7079646276000009	/* of the ring; a power of two */
#define VALUE_BIO_BASED			0x707964627600000a	/* 1 when the driver makes no requests */
#define VALUE_HALF_OF_SUMS		0x707964627600000b	/* entries, a power of two */
#define VALUE_LOOP_TAKEN		0x707964627600000c	/* see short_of_a_file(); 0: no loop device */
#define VALUE_LOOP_DIRECT		0x707964627600000d
#define VALUE_UNDERSTUDY		0x707964627600000e	/* 1 in the second copy of pydbt_submit() */
#define VOLUME_VALUE(number) ({ \
	u64 value; \
	asm(NUMBER_LOADED(number) : "=r"(value)); \
	value; })
#define VOLUME_START	VOLUME_VALUE(VALUE_VOLUME_START)
#define VOLUME_END	VOLUME_VALUE(VALUE_VOLUME_END)
#define BIO_BASED	VOLUME_VALUE(VALUE_BIO_BASED)

/* What a piece of memory held when it was copied, until the write has completed.
 * `tag` says which piece of which write: where it goes on the disk, in bytes; of a
 * device without requests a number from the bio and the place in it. An entry that a
 * later piece took is a false alarm, and costs a block that is read again. */
struct pydbt_sum {
	u64 tag;
	u64 sum;
};

struct pydbt_page {
	u64 words[PYDBT_SLOT_SMALL_BYTES / 8];
};

/* The sizes of these, and of pydbt_sums, are the volume's too: 1 stands for them. */
BPF_F_TABLE("array", u32, u64, pydbt_bits, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct pydbt_record, pydbt_headers, 1, BPF_F_MMAPABLE);
#if PYDBT_PAYLOAD
BPF_RINGBUF_OUTPUT(pydbt_data, 1);
#if LOOP_HELPER
BPF_TABLE("array", u32, struct pydbt_sum, pydbt_sums, 1);
BPF_TABLE("array", u32, struct pydbt_page, pydbt_zeros, 1);
/* What memory holds at completion. */
BPF_TABLE("percpu_array", u32, struct pydbt_page, pydbt_then, PYDBT_PROGRAM_BIO_COMPLETE + 1);
#endif
#endif
BPF_F_TABLE("array", u32, struct pydbt_config, pydbt_config, 1, BPF_F_MMAPABLE);
BPF_RINGBUF_OUTPUT(pydbt_bell, 1);	/* nothing but its wakeups matters */

/* The state of a walk over pages: in a map, not in registers, where the
 * verifier would follow every combination of values through every step. */
struct walk {
	u64 vector;	/* address of the next bio_vec */
	u64 source;	/* address of the next byte, or of the next struct page */
	u64 previous;	/* last slot */
	u64 bio;
	u64 data;	/* checking: address of the next byte */
	u64 tag;	/* of the next byte: see struct pydbt_sum */
	u32 bytes;	/* checking: bytes left of the vector in hand */
	u32 watched;	/* copying: WATCHED, NOT_WATCHED, or that nobody has looked yet */
	u32 left;	/* bytes (or pages) left of the vector in hand */
	u32 done;	/* bytes of the first vector that belong to others */
	u32 skip;	/* bytes before the start of the volume */
	u32 remaining;	/* bytes not yet taken from vectors */
	u32 pieces;
	u32 failed;	/* copying: a piece is missing. Checking: what the last step found */
};

struct cpu_state {
	struct pydbt_counters counters;
	u64 bio;	/* see number_of() in preempted.bpf.h */
	u64 tick;	/* the jiffy in which `now` was read */
	u64 now;
	struct walk walk;
};

BPF_TABLE("percpu_array", u32, struct cpu_state, pydbt_state, PYDBT_PROGRAMS);

/* A write, cut to the volume. */
struct extent {
	u64 sector;
	u32 sectors;
	u16 flags;
};

/* Verifiers up to at least 6.1 take the way back to a loop's head only from a
 * jump ("back-edge from insn"). So loops have their condition at the end, and
 * where the compiler would move the first load of the next round up behind it,
 * HEAD keeps it in its place. */
#define LOOP _Pragma("clang loop unroll(disable)")
#define HEAD asm volatile("" ::: "memory")
/* A walk by the kernel's own loop, bpf_loop(): its verifier follows one step, and
 * not each of hundreds. `step` names a function of this file, whose code and place
 * pydbt/kernel/linked.py puts in for the number. */
#define STEPS_COPY		0x7079646274000001
#define STEPS_CHECK_REQUEST	0x7079646274000002
#define STEPS_CHECK_BIO		0x7079646274000003
#define RUN_STEPS(step, count) do { \
	void *callback; \
	asm volatile(NUMBER_LOADED(step) : "=r"(callback)); \
	kernel_loop(count, callback, NULL, 0); \
} while (0)
static long (*kernel_loop)(u32 count, void *callback, void *context, u64 flags) = (void *)181;

/* Keep what was proved about a number out of reach of the optimizer, which
 * would prove it on a copy in another register. */
#define PIN(number) asm volatile("" : "+r"(number))

static __always_inline int read_kernel(void *to, u32 size, u64 from)
{
	return bpf_probe_read_kernel(to, size, (void *)from);
}

/* A field of a struct whose address the verifier knows by its type: an argument of
 * the tracepoint, and what members of it point to (pydbt/kernel/compiled.py). One
 * instruction, where read_kernel() is a call of some 30 ns; a bad address reads as
 * 0, of which no device is made. Written as the instruction itself, because bcc
 * makes a call of every dereference it sees. */
#define LOAD(type, base, offset) ({ \
	u64 loaded; \
	asm volatile("%0 = *(" type " *)(%1 + %2)" : "=r"(loaded) : "r"(base), "i"(offset)); \
	loaded; })
#define LOAD64(base, offset) LOAD("u64", base, offset)
#define LOAD32(base, offset) ((u32)LOAD("u32", base, offset))

/* A field of a struct that was read whole to the (8-byte aligned) stack. Some
 * fields are only 4-byte aligned (struct bvec_iter is packed). */
#define FIELD32(copy, offset) (*(u32 *)((char *)(copy) + (offset)))
#define FIELD64(copy, offset) (((offset) & 7) ? \
	((u64)FIELD32(copy, offset) | (u64)FIELD32(copy, (offset) + 4) << 32) : \
	*(u64 *)((char *)(copy) + (offset)))
#define FIELD16(copy, offset) (*(u16 *)((char *)(copy) + (offset)))

/* ---- the bitmap ---------------------------------------------------------- */

static __always_inline void or_word(u32 index, u64 mask)
{
	u64 *word = pydbt_bits.lookup(&index);

	/* Looking first spares the locked instruction: at completion the bit
	 * is there already. Nobody clears bits of the map that is active. */
	if (word && (*(volatile u64 *)word & mask) != mask)
		__sync_fetch_and_or(word, mask);
}

/* Bits first..last of the part of the map that begins at word `base`, in at most
 * `words` words. */
static __always_inline void or_range(u32 base, u64 first, u64 last, const int words)
{
	u32 word = first >> 6, last_word = last >> 6;
	u64 head = ~0ULL << (first & 63), tail = ~0ULL >> (63 - (last & 63));
	int step = 0;

	if (word == last_word) {
		or_word(base + word, head & tail);
		return;
	}
	or_word(base + word, head);
	or_word(base + last_word, tail);
	LOOP
	do {
		if (++word >= last_word)
			break;
		or_word(base + word, ~0ULL);
	} while (++step < words);
}

static __always_inline void mark(u32 active, const struct extent *extent)
{
	u32 base = active ? VOLUME_VALUE(VALUE_MAP_WORDS) : 0;
	u64 shift = VOLUME_VALUE(VALUE_BLOCK_SHIFT_SECTORS);
	u64 first = extent->sector >> shift;
	u64 last = (extent->sector + extent->sectors - 1) >> shift;
	u64 group, group_end, head_end, tail;

	if (first >> 6 == last >> 6) {	/* nearly every write */
		or_word(base + (first >> 6), ~0ULL << (first & 63) & ~0ULL >> (63 - (last & 63)));
		return;
	}
	/* Whole groups take one bit each in the coarse part (a request has less
	 * than 4 GiB: 256 groups of the smallest blocks); head and tail, each
	 * smaller than a group, take their blocks' own bits. */
	group = (first + PYDBT_GROUP_BLOCKS - 1) / PYDBT_GROUP_BLOCKS;
	group_end = (last + 1) / PYDBT_GROUP_BLOCKS;
	head_end = group * PYDBT_GROUP_BLOCKS;
	tail = head_end;
	if (group < group_end) {
		or_range(base + VOLUME_VALUE(VALUE_LEVEL1_WORDS), group, group_end - 1, 256 / 64 + 1);
		tail = group_end * PYDBT_GROUP_BLOCKS;
	} else if (head_end > last + 1) {
		head_end = last + 1;
	}
	if (first < head_end)
		or_range(base, first, head_end - 1, PYDBT_GROUP_WORDS);
	if (tail <= last)
		or_range(base, tail, last, PYDBT_GROUP_WORDS);
}

/* ---- is it ours, and what is it ------------------------------------------ */

/* The disk itself is known by its number, without a look at its gendisk, which
 * is rarely in the cache; a partition's disk by its gendisk. */
#define DISK_NUMBER VOLUME_VALUE(VALUE_DISK_NUMBER)

static __always_inline bool our_disk(u64 disk)
{
	return LOAD32(disk, OFF_gendisk_major) == VOLUME_VALUE(VALUE_DISK_MAJOR) &&
		LOAD32(disk, OFF_gendisk_first_minor) == VOLUME_VALUE(VALUE_DISK_MINOR);
}

static __always_inline bool our_bio(u64 block_device)
{
	return LOAD32(block_device, OFF_block_device_bd_dev) == DISK_NUMBER ||
		our_disk(LOAD64(block_device, OFF_block_device_bd_disk));
}

/* A request names the block device it is accounted to, or none. */
static __always_inline bool our_request(u64 request)
{
	return LOAD32(LOAD64(request, OFF_request_part), OFF_block_device_bd_dev) == DISK_NUMBER ||
		our_disk(LOAD64(LOAD64(request, OFF_request_q), OFF_request_queue_disk));
}

/* Cut to the volume; false when nothing is left. Sectors of a partition's bio
 * are the disk's own by now: the block layer remaps before it traces. */
static __always_inline bool clip(struct extent *extent, u64 sector, u32 bytes)
{
	u64 end = sector + (bytes >> 9);

	extent->flags = 0;
	if (sector < VOLUME_START) {
		sector = VOLUME_START;
		extent->flags = PYDBT_FLAG_CLIPPED;
	}
	if (end > VOLUME_END) {
		end = VOLUME_END;
		extent->flags = PYDBT_FLAG_CLIPPED;
	}
	if (sector >= end)
		return false;
	extent->sector = sector - VOLUME_START;
	extent->sectors = end - sector;
	return true;
}

/*
 * A loop device takes a write for done when its file took only the first part of
 * it, as on a file system that has become full (lo_complete_rq() looks at the
 * length of reads alone). What the file took stands in the driver's own part of a
 * request, behind it, at VALUE_LOOP_TAKEN. 0 is what the driver itself writes
 * there for a write that it made page by page (kernel_fixes.h; the byte at
 * VALUE_LOOP_DIRECT is 0 then), of which it tells each error.
 */
static __always_inline bool short_of_a_file(u64 request, u32 bytes)
{
	u64 at = VOLUME_VALUE(VALUE_LOOP_TAKEN);
	s64 taken;
	u8 direct;

	if (!at)
		return false;
	if (read_kernel(&taken, sizeof(taken), request + at))
		return true;
	if (taken)
		return taken != bytes;
	return read_kernel(&direct, sizeof(direct), request + VOLUME_VALUE(VALUE_LOOP_DIRECT)) || direct;
}

static __always_inline bool is_no_data_op(u32 op)
{
	return op == OP_DISCARD || op == OP_SECURE_ERASE || op == OP_WRITE_ZEROES;
}

/* Zone commands that leave the data alone. */
static __always_inline bool is_harmless_op(u32 op)
{
	return op == OP_ZONE_OPEN || op == OP_ZONE_CLOSE || op == OP_ZONE_FINISH;
}

static __always_inline u16 flags_of(u32 opf)
{
	u16 flags = 0;

	if (opf & (1U << BIT_FUA))
		flags |= PYDBT_FLAG_FUA;
	if (opf & (1U << BIT_PREFLUSH))
		flags |= PYDBT_FLAG_PREFLUSH;
	if (opf & (1U << BIT_META))
		flags |= PYDBT_FLAG_META;
	if (is_no_data_op(opf & OP_MASK))
		flags |= PYDBT_FLAG_NO_DATA_OP;
	return flags;
}

/* ---- records ------------------------------------------------------------- */

/* Take the next place in the order. */
static __always_inline struct pydbt_record *reserve_record(struct cpu_state *state, struct pydbt_config *config,
							   u64 *position)
{
	u64 records = VOLUME_VALUE(VALUE_HEADER_RECORDS);
	u32 index;

	*position = fetch_and_add(&config->producer, 1);
	state->counters.ordinal++;
	if (*position - *(volatile u64 *)&config->consumer >= records) {
		__sync_fetch_and_add(&config->overflows, 1);
		state->counters.lost++;
		return NULL;
	}
	index = *position & (records - 1);
	return pydbt_headers.lookup(&index);
}

/* Wake the controller, which asks for it only when nothing was written for a while:
 * a volume that is written to never comes here. The flag lies beside `consumer`,
 * which was read a moment ago. No wakeup is lost: the controller sets the flag,
 * then looks at `producer`, and this program added to `producer`, with a locked
 * instruction, before it looks at the flag. */
static __always_inline void ring_bell(struct pydbt_config *config)
{
	u64 one = 1;

	if (!*(volatile u64 *)&config->waiting)
		return;
	*(volatile u64 *)&config->waiting = 0;
	pydbt_bell.ringbuf_output(&one, sizeof(one), BPF_RB_FORCE_WAKEUP);
}

/* Let a record go. x86 keeps stores in order; a port to a weaker machine needs
 * a release here, and an acquire where the controller reads positions. */
static __always_inline void submit_record(struct pydbt_config *config, struct pydbt_record *record, u64 position)
{
	asm volatile("" ::: "memory");
	*(volatile u64 *)&record->position = position + 1;
	ring_bell(config);
}

/* The clock, read once in a jiffy: it costs as much as everything else here, and
 * a few milliseconds do not matter to a replica's lag. */
static __always_inline u64 recent_time(struct cpu_state *state)
{
	u64 tick = bpf_jiffies64();

	if (state->tick != tick) {
		state->tick = tick;
		state->now = bpf_ktime_get_ns();
	}
	return state->now;
}

static __always_inline void fill_record(struct pydbt_record *record, struct cpu_state *state,
					const struct extent *extent, u32 kind, u32 op, u64 cookie)
{
	record->sector = extent->sector;
	record->data = 0;
	record->cookie = cookie;
	record->time_ns = recent_time(state);
	record->sectors = extent->sectors;
	record->pieces = 0;
	record->kind = kind;
	record->op = op;
	record->flags = extent->flags;
	record->cpu = bpf_get_smp_processor_id();
	record->ordinal = state->counters.ordinal;
}

/* Every program's first steps after it knows the operation: count, and mark. */
static __always_inline void account(struct pydbt_counters *counters, const struct extent *extent, u32 op)
{
	counters->sectors += extent->sectors;
	if (op == OP_DISCARD)
		counters->discard_sectors += extent->sectors;
	if (op != OP_WRITE && !is_no_data_op(op))
		counters->unknown_ops++;
}

/* The parts of a bio that are needed, read at once. */
#define BIO_COPY_WORDS ((SIZE_bio_copy + 7) / 8)
#define BIO_AT(field) (OFF_bio_##field - OFF_bio_copy)

/* Whose state and walk pydbt_submit() has. */
#if MARK_APART
#define SUBMITTING (VOLUME_VALUE(VALUE_UNDERSTUDY) ? PYDBT_PROGRAM_UNDERSTUDY : PYDBT_PROGRAM_SUBMIT)
#else
#define SUBMITTING PYDBT_PROGRAM_SUBMIT
#endif

#if PYDBT_PAYLOAD
#include "payload.bpf.h"
#include "probe.bpf.h"
#endif

/* ---- the programs -------------------------------------------------------- */

#if MARK_APART
#include "preempted.bpf.h"
#else
#define is_anothers(state, config, address) false
#endif

int pydbt_submit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 address = ctx->args[ARG_block_bio_queue_bio];
	struct pydbt_record *record;
	struct pydbt_config *config;
	struct cpu_state *state;
	struct extent extent;
	u32 key = SUBMITTING, zero = 0, opf, op, bytes;
	u64 sector, position;

	opf = LOAD32(address, OFF_bio_bi_opf);
	op = opf & OP_MASK;
	if (!(op & 1) || !our_bio(LOAD64(address, OFF_bio_bi_bdev)))
		return 0;
	state = pydbt_state.lookup(&key);
	config = pydbt_config.lookup(&zero);
	if (!state || !config)
		return 0;

	bytes = LOAD32(address, OFF_bio_bi_size);
	sector = LOAD64(address, OFF_bio_bi_sector);
	if (bytes) {
		if (!clip(&extent, sector, bytes) || is_anothers(state, config, address))
			return 0;
		account(&state->counters, &extent, op);
		mark(config->active, &extent);
	} else if (opf & ((1U << BIT_FUA) | (1U << BIT_PREFLUSH))) {
		if (is_anothers(state, config, address))
			return 0;
		extent = (struct extent){};	/* an order mark */
	} else {
		if (!is_harmless_op(op))	/* zone reset: no range to know */
			state->counters.unknown_ops++;
		return 0;
	}
	if (!config->records)
		return 0;
	extent.flags |= flags_of(opf) | (BIO_BASED ? PYDBT_FLAG_BIO_BASED : 0);
	record = reserve_record(state, config, &position);
	if (!record)
		return 0;
	fill_record(record, state, &extent, PYDBT_KIND_SUBMIT, op, address);
#if PYDBT_PAYLOAD
	if (config->payload && bytes && op == OP_WRITE)
		copy_payload(state, config, record, &extent, address, sector);
#endif
	submit_record(config, record, position);
	return 0;
}

int pydbt_request_complete(struct bpf_raw_tracepoint_args *ctx)
{
	u64 address = ctx->args[ARG_block_rq_complete_rq];
	u32 bytes = ctx->args[ARG_block_rq_complete_nr_bytes];
	struct pydbt_record *record;
	struct pydbt_config *config;
	struct cpu_state *state;
	struct extent extent;
	u32 key = PYDBT_PROGRAM_REQUEST_COMPLETE, zero = 0, opf, op;
	u64 position;

	opf = LOAD32(address, OFF_request_cmd_flags);
	op = opf & OP_MASK;
	if (!(op & 1))
		return 0;
	if (!our_request(address))
		return 0;
	state = pydbt_state.lookup(&key);
	config = pydbt_config.lookup(&zero);
	if (!state || !config)
		return 0;
	if (op == OP_DRV_OUT || op == OP_SCSI_OUT) {
		state->counters.passthrough++;
		return 0;
	}
	/* A flush sequence ends with a second, empty completion of its data. */
	if (!bytes || !clip(&extent, LOAD64(address, OFF_request___sector), bytes))
		return 0;
	account(&state->counters, &extent, op);
	mark(config->active, &extent);
	if (!config->records)
		return 0;
	extent.flags |= flags_of(opf);
	if ((u32)ctx->args[ARG_block_rq_complete_error] || (op == OP_WRITE && short_of_a_file(address, bytes)))
		extent.flags |= PYDBT_FLAG_ERROR;
	record = reserve_record(state, config, &position);
	if (!record)
		return 0;
	fill_record(record, state, &extent, PYDBT_KIND_COMPLETE, op, 0);
#if PYDBT_PAYLOAD
	if (config->payload && op == OP_WRITE)
		check_request(state, config, record, address);
#endif
	submit_record(config, record, position);
	return 0;
}

/* Bio-based devices; and, of a request-based one, the bios that failed before
 * they became requests (of the others the kernel traces the request only). */
int pydbt_bio_complete(struct bpf_raw_tracepoint_args *ctx)
{
	u64 address = ctx->args[ARG_block_bio_complete_bio];
	struct pydbt_record *record;
	struct pydbt_config *config;
	struct cpu_state *state;
	struct extent extent;
	u32 key = PYDBT_PROGRAM_BIO_COMPLETE, zero = 0, opf, op, bytes;
	u64 sector, position;

	opf = LOAD32(address, OFF_bio_bi_opf);
	op = opf & OP_MASK;
	if (!(op & 1) || !our_bio(LOAD64(address, OFF_bio_bi_bdev)))
		return 0;
	state = pydbt_state.lookup(&key);
	config = pydbt_config.lookup(&zero);
	if (!state || !config)
		return 0;

	bytes = LOAD32(address, OFF_bio_bi_size);
	sector = LOAD64(address, OFF_bio_bi_sector);
	if (bytes && clip(&extent, sector, bytes)) {
		account(&state->counters, &extent, op);
		mark(config->active, &extent);
	} else if (BIO_BASED) {
		/* The driver used the bio's iterator up. The cookie tells the
		 * controller which range has completed. */
		extent = (struct extent){};
	} else {
		return 0;
	}
	if (!config->records)
		return 0;
	extent.flags |= flags_of(opf) | (BIO_BASED ? PYDBT_FLAG_BIO_BASED : 0);
	if (LOAD("u8", address, OFF_bio_bi_status))
		extent.flags |= PYDBT_FLAG_ERROR;
	record = reserve_record(state, config, &position);
	if (!record)
		return 0;
	fill_record(record, state, &extent, PYDBT_KIND_COMPLETE, op, BIO_BASED ? address : 0);
#if PYDBT_PAYLOAD
	if (config->payload && op == OP_WRITE)
		check_bio(state, config, record, address);
#endif
	submit_record(config, record, position);
	return 0;
}
