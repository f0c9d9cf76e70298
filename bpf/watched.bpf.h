/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Watched memory: pages that may change during a write with nothing to tell of it.
 * Part of payload.bpf.h.
 *
 * These are a program's memory that it writes with O_DIRECT, anonymous or of a file
 * (a shared mapping, huge pages, the memory of a virtual machine), and swap. Nobody
 * locks them and no dirty mark is new. So what is copied is summed, the sum is kept
 * until the write completes, and is compared with a sum of what the memory holds
 * then. Equal sums say that the disk has what was copied: the disk read the memory
 * in between. (Content that changed and came back is the exception.) A piece whose
 * sum is not there any more counts as different. All of this only while
 * pydbt_config.watch is set: it costs about as much as the copy.
 *
 * Pieces are the parts of a vector within 4,096 bytes of the disk, so that a write
 * is cut in the same way when it completes in parts, as several requests.
 */

enum { NOT_KNOWN, NOT_WATCHED, WATCHED };
enum { ABSENT, SAME, DIFFERENT };

/* Without requests a bio's place is not known any more when it completes: then its address takes that
 * place, from its record, as a plain number of which the verifier knows no type. */
static __always_inline u64 first_tag(const struct pydbt_record *record, u64 sector)
{
	return BIO_BASED ? (*(volatile u64 *)&record->cookie * 0x9e3779b97f4a7c15ULL) << 12 : sector << 9;
}

#if LOOP_HELPER
/* Memory of a program: with a mapping, and not a file's page that is being written out. */
static __always_inline u64 nobody_tells(const u64 *page)
{
	u64 mapping = FIELD64(page, OFF_page_mapping), flags = FIELD64(page, OFF_page_flags);
	u64 some = (mapping | -mapping) >> 63;
	u64 anonymous = (mapping | mapping >> 1) & 1;	/* or movable */

	return some & (anonymous | ~(flags >> PG_writeback)) & 1;
}

/* The copy of a page's first words, or of its folio's. */
static __always_inline bool read_page(u64 *page, u64 address)
{
	u64 head;

	if (read_kernel(page, PAGE_COPY_WORDS * 8, address))
		return false;
	head = head_of(address, FIELD64(page, OFF_page_compound));
	return head == address || !read_kernel(page, PAGE_COPY_WORDS * 8, head);
}

/* By the first page of a bio: one bio has the memory of one kind. Of another kind's
 * pages in it there is no sum, which counts as different for anonymous ones. */
static __always_inline void decide_to_watch(struct walk *walk, const struct pydbt_config *config, u64 page, u32 offset)
{
	u64 copy[PAGE_COPY_WORDS];

	if (walk->watched != NOT_KNOWN)
		return;
	walk->watched = read_page(copy, page + (u64)(offset >> KERNEL_PAGE_SHIFT) * SIZE_page) &&
		nobody_tells(copy) ? WATCHED : NOT_WATCHED;
}

static __always_inline bool is_watched(const struct walk *walk)
{
	return walk->watched == WATCHED;
}

static __always_inline u32 watched_length(const struct walk *walk, u32 length)
{
	u32 to_end = PYDBT_SLOT_SMALL_BYTES - (walk->tag & (PYDBT_SLOT_SMALL_BYTES - 1));

	return length < to_end ? length : to_end;
}

#define SUM_WORD(at) do { \
	first += LOAD64(words, 8 * (at)); \
	second += first; \
} while (0)

/* Of 4,096 bytes: depends on what is there and on where (as Fletcher's sums do). */
static __always_inline u64 sum_of(const void *page)
{
	u64 first = 0, second = 0, step = 0;
	const void *words = page;

	LOOP
	do {
		HEAD;
		SUM_WORD(0);
		SUM_WORD(1);
		SUM_WORD(2);
		SUM_WORD(3);
		SUM_WORD(4);
		SUM_WORD(5);
		SUM_WORD(6);
		SUM_WORD(7);
		words += 64;
	} while (++step < PYDBT_SLOT_SMALL_BYTES / 64);
	return first * 0x9e3779b97f4a7c15ULL ^ second;
}

static __always_inline struct pydbt_sum *place_of(u64 tag)
{
	/* One half is for pieces that begin where a block of 4,096 bytes does, nearly all. */
	u32 half = VOLUME_VALUE(VALUE_HALF_OF_SUMS), within = tag >> 9 & 7, index;

	index = (((tag >> 12) + within * 0x1249) & (half - 1)) + (within ? half : 0);
	return pydbt_sums.lookup(&index);
}

/* `length` bytes of memory, and zeros behind them. */
static __always_inline bool read_piece(void *to, u64 length, u64 from)
{
	u32 zero = 0;

	if (length < PYDBT_SLOT_SMALL_BYTES) {
		void *zeros = pydbt_zeros.lookup(&zero);

		if (!zeros || bpf_probe_read_kernel(to, PYDBT_SLOT_SMALL_BYTES, zeros))
			return false;
	}
	PIN(length);
	if (length > PYDBT_SLOT_SMALL_BYTES)
		length = PYDBT_SLOT_SMALL_BYTES;
	return !bpf_probe_read_kernel(to, length, (void *)from);
}

static __always_inline void copy_watched(struct walk *walk, u64 length)
{
	struct pydbt_slot *slot = pydbt_data.ringbuf_reserve(PYDBT_SLOT_PREFIX_BYTES + PYDBT_SLOT_SMALL_BYTES);
	struct pydbt_sum *kept;

	if (!slot) {
		walk->failed = 1;
		return;
	}
	slot->previous = walk->previous;
	slot->length = length;
	slot->size = PYDBT_SLOT_SMALL_BYTES;
	if (!read_piece(slot + 1, length, walk->source))
		walk->failed = 1;
	kept = place_of(walk->tag);
	if (kept) {
		kept->tag = walk->tag;
		kept->sum = sum_of(slot + 1);
	}
	walk->previous = (u64)slot;
	walk->pieces++;
	pydbt_data.ringbuf_submit(slot, BPF_RB_NO_WAKEUP);
}

static __always_inline void pass_bytes(struct walk *walk, u64 bytes)
{
	if (bytes > walk->bytes)
		bytes = walk->bytes;
	walk->data += bytes;
	walk->bytes -= bytes;
	walk->tag += bytes;
}

static __always_inline bool is_as_it_was(const struct walk *walk, const struct pydbt_sum *kept, u32 length, u32 program)
{
	void *now = pydbt_then.lookup(&program);

	return now && read_piece(now, length, walk->data) && sum_of(now) == kept->sum;
}

/* Whether the next piece is as it was. ABSENT: it is not of watched memory, and nothing was done. */
static __always_inline int watched_piece(struct walk *walk, const struct pydbt_config *config, const u64 *page, u32 program)
{
	u32 length = watched_length(walk, walk->bytes);
	u64 first_page = walk->data >> KERNEL_PAGE_SHIFT, pages;
	struct pydbt_sum *kept;

	if (!config->watch || !nobody_tells(page))
		return ABSENT;
	kept = place_of(walk->tag);
	if (!kept || kept->tag != walk->tag)
		return (FIELD64(page, OFF_page_mapping) & 3) ? DIFFERENT : ABSENT;
	if (!is_as_it_was(walk, kept, length, program))
		return DIFFERENT;
	pass_bytes(walk, length);
	pages = (walk->data >> KERNEL_PAGE_SHIFT) - first_page;
	walk->source += pages * SIZE_page;
	walk->left = walk->bytes ? walk->left - pages : 0;
	return SAME;
}
#else	/* a loop without the kernel's help has no room for this in its budget */
static __always_inline void decide_to_watch(struct walk *walk, const struct pydbt_config *config, u64 page, u32 offset)
{
}

static __always_inline bool is_watched(const struct walk *walk)
{
	return false;
}

static __always_inline u32 watched_length(const struct walk *walk, u32 length)
{
	return length;
}

static __always_inline void copy_watched(struct walk *walk, u64 length)
{
}

static __always_inline void pass_bytes(struct walk *walk, u64 bytes)
{
}

static __always_inline int watched_piece(struct walk *walk, const struct pydbt_config *config, const u64 *page, u32 program)
{
	return ABSENT;
}
#endif
