/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Payload: copy the data of a write at submission, and tell at completion
 * whether it has changed in between, or can have. Part of capture.bpf.c, left
 * out of address-only builds.
 */

/* Address in the direct map of a byte in (or, for large folios, behind) a page. */
static __always_inline u64 address_of(const struct pydbt_config *config, u64 page, u64 offset)
{
	return config->page_offset_base +
		(((page - config->vmemmap_base) / SIZE_page) << KERNEL_PAGE_SHIFT) + offset;
}

/* A bio of a DMA buffer has a device's memory, and no vectors of pages (kernel_fixes.h). */
static __always_inline bool has_no_pages(const u64 *bio)
{
#ifdef BIT_BIO_DMABUF_MAP
	return FIELD16(bio, BIO_AT(bi_flags)) >> BIT_BIO_DMABUF_MAP & 1;
#else
	return false;
#endif
}

static __always_inline void start_walk(struct walk *walk, const u64 *bio, u32 index, u32 done, u32 bytes)
{
	walk->vector = FIELD64(bio, BIO_AT(bi_io_vec)) + (u64)index * SIZE_bio_vec;
	walk->done = done;
	walk->left = 0;
	walk->remaining = bytes;
}

/* The next bio_vec of the walk, without what others have done of it. */
static __always_inline bool next_vector(struct walk *walk, u64 *page, u32 *offset, u32 *length)
{
	u64 vector[2];

	if (read_kernel(vector, SIZE_bio_vec, walk->vector))
		return false;
	walk->vector += SIZE_bio_vec;
	*page = FIELD64(vector, OFF_bio_vec_bv_page);
	*offset = FIELD32(vector, OFF_bio_vec_bv_offset) + walk->done;
	*length = FIELD32(vector, OFF_bio_vec_bv_len) - walk->done;
	walk->done = 0;
	if (*length > walk->remaining)
		*length = walk->remaining;
	walk->remaining -= *length;
	return *length != 0;
}

static __always_inline bool is_buffer(const u64 *bio, const struct pydbt_config *config)
{
	u64 end = FIELD64(bio, BIO_AT(bi_end_io));
	u64 other = (end ^ config->buffer_end_io[0]) && (end ^ config->buffer_end_io[1]) &&
		(end ^ config->buffer_end_io[2]) && (end ^ config->buffer_end_io[3]) && (end ^ config->buffer_end_io[4]);

	return end && !other;
}

#include "watched.bpf.h"

/* One piece into one slot. `room` is a constant, as the ring asks for. A slot is
 * let go at once: it is found through its record, which is held back. */
static __always_inline void copy_piece(struct walk *walk, u64 length, const u64 room)
{
	struct pydbt_slot *slot = pydbt_data.ringbuf_reserve(PYDBT_SLOT_PREFIX_BYTES + room);

	if (!slot) {
		walk->failed = 1;
		return;
	}
	slot->previous = walk->previous;
	slot->length = length;
	slot->size = room;
	PIN(length);
	if (length > room)
		length = room;
	if (bpf_probe_read_kernel(slot + 1, length, (void *)walk->source))
		walk->failed = 1;
	walk->previous = (u64)slot;
	walk->pieces++;
	pydbt_data.ringbuf_submit(slot, BPF_RB_NO_WAKEUP);
}

/* One piece, or one vector that is skipped; false at the end. */
static __always_inline bool copy_step(struct walk *walk, const struct pydbt_config *config)
{
	u64 page;
	u32 offset, length;

	if (!walk->left) {
		if (!walk->remaining)
			return false;
		if (!next_vector(walk, &page, &offset, &length)) {
			walk->failed = 1;
			return false;
		}
		decide_to_watch(walk, config, page, offset);
		if (walk->skip >= length) {
			walk->skip -= length;
			walk->tag += length;
			return true;
		}
		walk->source = address_of(config, page, offset + walk->skip);
		walk->left = length - walk->skip;
		walk->tag += walk->skip;
		walk->skip = 0;
	}
	length = walk->left;
	if (is_watched(walk)) {
		length = watched_length(walk, length);
		copy_watched(walk, length);
	} else if (length <= PYDBT_SLOT_SMALL_BYTES) {
		copy_piece(walk, length, PYDBT_SLOT_SMALL_BYTES);
	} else if (length <= PYDBT_SLOT_MEDIUM_BYTES) {
		copy_piece(walk, length, PYDBT_SLOT_MEDIUM_BYTES);
	} else if (length < PYDBT_SLOT_HUGE_BYTES) {
		if (length > PYDBT_SLOT_LARGE_BYTES)
			length = PYDBT_SLOT_LARGE_BYTES;
		copy_piece(walk, length, PYDBT_SLOT_LARGE_BYTES);
	} else {
		length = PYDBT_SLOT_HUGE_BYTES;
		copy_piece(walk, length, PYDBT_SLOT_HUGE_BYTES);
	}
	walk->source += length;
	walk->left -= length;
	walk->tag += length;
	return !walk->failed;
}

#if LOOP_HELPER
/* For bpf_loop(): 1 ends the loop. It has the walk of the only program that calls it. */
int pydbt_steps_copy(u64 index)
{
	u32 key = SUBMITTING, zero = 0;
	struct cpu_state *state = pydbt_state.lookup(&key);
	struct pydbt_config *config = pydbt_config.lookup(&zero);

	return !state || !config || !copy_step(&state->walk, config);
}

static __always_inline void copy_steps(struct walk *walk, const struct pydbt_config *config)
{
	RUN_STEPS(STEPS_COPY, COPY_STEPS);
}
#else
static __always_inline void copy_steps(struct walk *walk, const struct pydbt_config *config)
{
	u64 step = 0;

	LOOP
	do {
		HEAD;
		if (!copy_step(walk, config))
			break;
	} while (++step < COPY_STEPS);
}
#endif

static __always_inline void copy_payload(struct cpu_state *state, const struct pydbt_config *config,
					 struct pydbt_record *record, const struct extent *extent,
					 u64 address, u64 bio_sector)
{
	struct walk *walk = &state->walk;
	u64 bio[BIO_COPY_WORDS];

	if (read_kernel(bio, SIZE_bio_copy, address + OFF_bio_copy) || has_no_pages(bio)) {
		record->flags |= PYDBT_FLAG_NO_PAYLOAD;
		state->counters.no_payload++;
		return;
	}

	/* Only the volume's part of the request: skip what lies before it. */
	walk->skip = (extent->sector + VOLUME_START - bio_sector) << 9;
	start_walk(walk, bio, FIELD32(bio, BIO_AT(bi_idx)), FIELD32(bio, BIO_AT(bi_bvec_done)),
		   (extent->sectors << 9) + walk->skip);
	walk->previous = 0;
	walk->pieces = 0;
	walk->failed = 0;
	walk->tag = first_tag(record, bio_sector);
	walk->watched = is_buffer(bio, config) || !config->watch ? NOT_WATCHED : NOT_KNOWN;
	copy_steps(walk, config);
	/* Slots that were filled are named even then, to be given back. */
	record->data = walk->previous;
	record->pieces = walk->pieces;
	if (walk->failed || walk->left || walk->remaining) {
		record->flags |= PYDBT_FLAG_NO_PAYLOAD;
		state->counters.no_payload++;
	}
}

/*
 * Can the bytes have changed between the copy and the disk's own read of them?
 *
 * Where a device does not ask for stable pages, the page cache lets a page be
 * written to while it is being written out. Whoever does so holds the folio's
 * lock, or has made the folio dirty before the first byte changes (a store
 * through a mapping faults first: write-out made it read-only), and the dirty
 * mark cannot go away before this write-out has ended, because the next one
 * waits for it. So a folio that is neither dirty nor locked at completion has
 * not changed. (A false alarm costs a block that is read again.)
 *
 * Memory without a mapping belongs to the kernel's own buffers (XFS's, which
 * are locked while in flight). Of the memory of a program that writes with
 * O_DIRECT, and of swap, nothing tells: see watched.bpf.h.
 *
 * Buffers (ext4's and the block device's own) are submitted one at a time, by
 * submit_bh(), and have a dirty bit of their own, which says the same more
 * exactly: the folio of such a buffer is often dirty for its neighbours' sake.
 * jbd2 never changes a buffer in flight: it waits for the buffer's lock, or for
 * BH_Shadow while the buffer goes to the journal.
 */
/* Arithmetic instead of branches: the verifier keeps a branch open for each, in
 * each step, up to 8,192. */
static __always_inline bool may_change(const u64 *page)
{
	u64 mapping = FIELD64(page, OFF_page_mapping), flags = FIELD64(page, OFF_page_flags);
	u64 some = (mapping | -mapping) >> 63;		/* it has a mapping ... */
	u64 other = (mapping | mapping >> 1) & 1;	/* ... of a file: not anonymous or movable */

	return some & ~other & (flags >> PG_dirty | flags >> PG_locked);
}

static __always_inline bool buffer_stable(const u64 *bio)
{
	u64 buffer_state;

	return !read_kernel(&buffer_state, 8, FIELD64(bio, BIO_AT(bi_private)) + OFF_buffer_head_b_state) &&
		!(buffer_state & (1ULL << BIT_BH_Dirty));
}

enum { UNSTABLE, STABLE, GO_ON };

/* One page, folio or watched piece, or one step to the next bio. `program`: whose walk it is. */
static __always_inline int check_step(struct walk *walk, const struct pydbt_config *config, u32 program)
{
	u64 copy[BIO_COPY_WORDS], page[PAGE_COPY_WORDS], head;
	u32 offset, length;

	if (!walk->left) {
		if (!walk->remaining || !walk->pieces) {
			if (!walk->bio)
				return STABLE;
			if (read_kernel(copy, SIZE_bio_copy, walk->bio + OFF_bio_copy) || has_no_pages(copy))
				return UNSTABLE;
			walk->bio = FIELD64(copy, BIO_AT(bi_next));
			walk->pieces = ~0U;
			start_walk(walk, copy, FIELD32(copy, BIO_AT(bi_idx)), FIELD32(copy, BIO_AT(bi_bvec_done)),
				   FIELD32(copy, BIO_AT(bi_size)));
			if (is_buffer(copy, config)) {
				walk->tag += walk->remaining;
				walk->remaining = 0;
				return buffer_stable(copy) ? GO_ON : UNSTABLE;
			}
			if (!walk->remaining)
				return GO_ON;
		}
		if (!next_vector(walk, &head, &offset, &length))
			return UNSTABLE;
		walk->pieces--;
		walk->data = address_of(config, head, offset);
		walk->bytes = length;
		walk->source = head + (u64)(offset >> KERNEL_PAGE_SHIFT) * SIZE_page;
		offset &= (1U << KERNEL_PAGE_SHIFT) - 1;
		walk->left = (offset + length + (1U << KERNEL_PAGE_SHIFT) - 1) >> KERNEL_PAGE_SHIFT;
	}
	if (read_kernel(page, sizeof(page), walk->source))
		return UNSTABLE;
	head = head_of(walk->source, FIELD64(page, OFF_page_compound));
	if (head != walk->source && read_kernel(page, sizeof(page), head))
		return UNSTABLE;
	switch (watched_piece(walk, config, page, program)) {
	case DIFFERENT:
		return UNSTABLE;
	case SAME:
		return GO_ON;
	}
	if (may_change(page))
		return UNSTABLE;
	/* The folio's flags are those of all its pages. */
	length = 1;
	if (FIELD64(page, OFF_page_flags) & (1ULL << PG_head)) {
		if (read_kernel(&length, 4, head + OFF_folio_pages))
			return UNSTABLE;
		length -= (walk->source - head) / SIZE_page;
		if (length > walk->left || !length)
			length = walk->left;
	}
	walk->source += (u64)length * SIZE_page;
	walk->left -= length;
	pass_bytes(walk, ((u64)length << KERNEL_PAGE_SHIFT) - (walk->data & ((1U << KERNEL_PAGE_SHIFT) - 1)));
	return GO_ON;
}

#if LOOP_HELPER
static __always_inline int check_once(u32 key)
{
	u32 zero = 0;
	struct cpu_state *state = pydbt_state.lookup(&key);
	struct pydbt_config *config = pydbt_config.lookup(&zero);

	if (!state || !config)
		return 1;
	state->walk.failed = check_step(&state->walk, config, key);
	return state->walk.failed != GO_ON;
}

int pydbt_steps_check_request(u64 index)
{
	return check_once(PYDBT_PROGRAM_REQUEST_COMPLETE);
}

int pydbt_steps_check_bio(u64 index)
{
	return check_once(PYDBT_PROGRAM_BIO_COMPLETE);
}

#define CHECK_BY(steps) RUN_STEPS(steps, CHECK_STEPS)
#else
static __always_inline void check_steps(struct walk *walk, const struct pydbt_config *config)
{
	u64 step = 0;

	LOOP
	do {
		HEAD;
		walk->failed = check_step(walk, config, 0);
		if (walk->failed != GO_ON)
			break;
	} while (++step < CHECK_STEPS);
}

#define CHECK_BY(steps) check_steps(walk, config)
#endif

/* Unstable also where it is too long to look at all of it. */
#define PAGES_STABLE(steps) ({ CHECK_BY(steps); walk->failed == STABLE; })

static __always_inline void flag_unstable(struct cpu_state *state, struct pydbt_record *record)
{
	record->flags |= PYDBT_FLAG_UNSTABLE;
	state->counters.unstable++;
}

static __always_inline void check_request(struct cpu_state *state, const struct pydbt_config *config,
					  struct pydbt_record *record, u64 request)
{
	struct walk *walk = &state->walk;

	walk->bio = LOAD64(request, OFF_request_bio);
	walk->tag = LOAD64(request, OFF_request___sector) << 9;
	walk->left = 0;
	walk->remaining = 0;
	if (!PAGES_STABLE(STEPS_CHECK_REQUEST))
		flag_unstable(state, record);
}

/* The iterator may be used up; the vectors are still there, all of them, unless
 * the bio is a clone, which shares those of another and does not count them. */
static __always_inline void check_bio(struct cpu_state *state, const struct pydbt_config *config,
				      struct pydbt_record *record, u64 address)
{
	struct walk *walk = &state->walk;
	u64 bio[BIO_COPY_WORDS];
	u32 vectors;

	if (read_kernel(bio, SIZE_bio_copy, address + OFF_bio_copy) || has_no_pages(bio)) {
		flag_unstable(state, record);
		return;
	}
	vectors = FIELD16(bio, BIO_AT(bi_vcnt));
	walk->tag = first_tag(record, FIELD64(bio, BIO_AT(bi_sector)));
	if (is_buffer(bio, config)) {
		if (!buffer_stable(bio))
			flag_unstable(state, record);
		return;
	}
	if (!vectors) {
		walk->bio = FIELD32(bio, BIO_AT(bi_size)) ? address : 0;
		walk->left = 0;
		walk->remaining = 0;
		if (!walk->bio) {
			flag_unstable(state, record);
			return;
		}
	} else {
		walk->bio = 0;
		walk->pieces = vectors;
		start_walk(walk, bio, 0, 0, ~0U);
	}
	if (!PAGES_STABLE(STEPS_CHECK_BIO))
		flag_unstable(state, record);
}
