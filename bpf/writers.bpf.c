/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Attribution: who dirtied the pages of the volume's files, and whose bytes are
 * in each write that reaches the volume. These programs only observe: they are
 * apart from the capture, live as long as the process that attached them, and
 * whatever they miss is a row of its own.
 *
 * Compiled like bpf/capture.bpf.c, with -D from pydbt/kernel/tracing/writers_layout.py.
 *
 * Two events:
 *   writeback_dirty_folio	a page became dirty: remember the task, for this page
 *				of this file
 *   block_bio_queue		a write is submitted: the task now, for direct I/O; the
 *				tasks that are remembered for its pages, for buffered
 *
 * Of a page that is dirty already the kernel tells no second writer. Of a large
 * folio it tells one event, for all of it. A bio is taken for one run of its file's
 * pages where its last page fits; else page by page.
 */

#include "observing.h"
#include "kernel_fixes.h"

/* The volume, and addresses of kernel functions that tell what a bio is for (0 where
 * the kernel shows none): filled in when the code is loaded, as in capture.bpf.c. */
#define VALUE_DISK_NUMBER		0x7079646277000001
#define VALUE_DISK_MAJOR		0x7079646277000002
#define VALUE_DISK_MINOR		0x7079646277000003
#define VALUE_VOLUME_START		0x7079646277000004	/* sectors of the disk */
#define VALUE_VOLUME_END		0x7079646277000005
#define VALUE_END_OF_DIRECT		0x7079646277000006	/* iomap_dio_bio_end_io */
#define VALUE_END_OF_BUFFER		0x7079646277000007	/* end_bio_bh_io_sync */
#define VALUE_END_OF_JBD2		0x7079646277000008	/* journal_end_buffer_io_sync */
#define VALUE_END_OF_FAST_COMMIT	0x7079646277000009	/* ext4_end_buffer_io_sync */
#define VALUE_END_OF_XFS_LOG		0x707964627700000a	/* xlog_bio_end_io */

/* The walk over a bio is the kernel's own loop where there is one: see capture.bpf.c. */
#define STEPS_WALK	0x7079646278000001
static long (*kernel_loop)(u32 count, void *callback, void *context, u64 flags) = (void *)181;
#define LOOP _Pragma("clang loop unroll(disable)")
#define HEAD asm volatile("" ::: "memory")

#define KIND_DIRECT	1
#define KIND_BUFFERED	2
#define KIND_JOURNAL	3
#define KIND_METADATA	4
#define KIND_BEFORE	5	/* its pages were dirtied before these programs were attached */
#define KIND_UNKNOWN	6

#define PLACE_MOUNTED	1	/* a file system is mounted from this block device */

#define FILE_TYPE	0170000	/* S_IFMT, include/uapi/linux/stat.h */
#define FILE_BLOCK	0060000	/* S_IFBLK */
#define TASK_KERNEL	0x00200000	/* PF_KTHREAD, include/linux/sched.h: the same since v2.6 */
#define NOT_OF_A_FILE	3	/* PAGE_MAPPING_FLAGS: anonymous, or movable by its driver */
#define PAGE_BYTES	(1ULL << KERNEL_PAGE_SHIFT)

#define CHUNK_SHIFT	4	/* 16 pages */
#define CHUNK_PAGES	16
#define FOLIO_CHUNKS	32	/* 512 pages: 2 MiB */
#if LOOP_HELPER
#define WALK_CHUNKS	256	/* beyond that every n-th chunk stands for its neighbours */
#else
#define WALK_CHUNKS	8
#endif
#define WALK_STEPS	(WALK_CHUNKS + 2)

/* A row of the sums: whose bytes, of which kind, to which file. */
struct pydbt_row_key {
	u64 inode;	/* 0: no file, or it is not known which */
	u32 device;	/* of its file system, as in super_block.s_dev */
	u32 generation;
	u32 writer;	/* pydbt_writer.number; 0: nobody */
	u32 kind;
};

struct pydbt_row {
	u64 dirtied;	/* bytes */
	u64 written;
};

/* Where the table of rows is full, a writer's bytes are counted without their file. */
struct pydbt_no_room_key {
	u32 writer;
	u32 kind;
};

struct pydbt_writer_key {
	u64 started;	/* of the process, in ns of CLOCK_BOOTTIME */
	u64 cgroup;
	u32 process;
	u32 user;
};

struct pydbt_writer {
	u32 number;	/* from 1; never given twice */
	u32 kernel;	/* a kernel thread */
	char name[16];	/* of the process; any bytes */
};

/*
 * Who dirtied which pages: chunks of 16 pages of a file, in sets of four. A chunk is
 * known by its set and 32 more bits of a hash of its place: two of one set are taken
 * for each other once in a thousand million. A new one takes the place that was
 * dirtied longest ago in its set. An array costs a fraction of a hash table. What a
 * page costs is nearly all cache lines and address translations that are not at
 * hand: so a set is one line, and the owners of single pages, which few chunks have,
 * are elsewhere.
 */
#define WAYS		4
#define SET_BITS	15	/* 131072 chunks: 8 GiB of files written from end to end, 512 MiB of single pages */
#define MIXED		(1U << 31)	/* of an owner: a page whose slot is not 0 has another one */

struct pydbt_set {
	u32 tag[WAYS];
	u32 owner[WAYS];
	u32 tick[WAYS];
	u32 unused[WAYS];
};

struct pydbt_slots {
	u32 slot[WAYS * CHUNK_PAGES];
};

struct pydbt_totals {
	u64 numbers;	/* writers so far */
	u64 without_file;	/* how often there was no room for a row, and its writer's own was taken */
	u64 lost_rows;	/* no room for that one either: its bytes are in the next two */
	u64 lost_dirtied;
	u64 lost_written;
	u64 lost_writers;	/* no room for a writer: its bytes are unknown */
};

/*
 * Sampling: of each 2^n chunks one is remembered, and looked up; bytes of the others
 * go with the next one that is looked up on the same CPU. Of direct writes it is the
 * file: see submit_direct(). Bits of a chunk's hash that
 * must be 0. What is remembered may be less than what is looked up, never more.
 */
struct pydbt_settings {
	u64 begun;	/* jiffies of the first event: a page that was dirtied before then was not seen. 0: nothing is counted yet */
	u64 remembered;
	u64 looked_up;
};
#define SAMPLE_SHIFT	32	/* behind the bits of a tag */
#define NOT_SAMPLED	(~0U & ~MIXED)

struct seen_file {
	u64 inode;
	u32 device;
	u32 generation;
	u32 is_block;
	u32 place;	/* PLACE_*, and 1 << 31 where it is the volume's */
};
#define PLACE_OURS	(1U << 31)

/* In the order in which it is used: each line of the cache that an event does not touch is one that need not be at hand. */
struct cpu_state {
	struct pydbt_row_key row;	/* of `pending`: the controller reads these two */
	u64 pending;	/* bytes that are not in their row yet: dirtied, or written */
	u64 looks;	/* at pages, and direct writes: what costs most */
	u64 host;	/* the inode, or mapping, that was looked at last, in this jiffy */
	u64 tick;
	u64 task;	/* whose writer is known: the last one */
	u64 task_tick;
	u64 chunk;	/* dirtied: of the last page; ~0 when the next must be looked at */
	struct seen_file file;
	u32 writer;
	u32 kernel;
	u64 skipped;	/* bytes that go with the next chunk that is looked up */
	u64 vector;	/* of the next page, where the pages are no run; else 0 */
	u64 copy[3];	/* pointers that become numbers on their way through the map */
	/* a walk over a bio */
	u32 left;	/* bytes */
	u32 skip;	/* bytes of the first vector that belong to others */
	u32 run_writer;
	u32 without_writer;	/* the kind of a page whose writer is not known */
	u64 index;
	u64 run_bytes;
	u64 pages;
	/* another task, and a direct write */
	u64 process;
	u64 cgroup;
	u64 chance;
};
#define STATE_DIRTIED	0
#define STATE_SUBMITTED	1

BPF_TABLE("percpu_array", u32, struct cpu_state, pydbt_wr_state, 2);
BPF_TABLE("array", u32, struct pydbt_totals, pydbt_wr_totals, 1);
BPF_TABLE("array", u32, struct pydbt_settings, pydbt_wr_sample, 1);
BPF_TABLE("hash", u32, u32, pydbt_wr_places, 64);
BPF_TABLE("hash", struct pydbt_row_key, struct pydbt_row, pydbt_wr_rows, 8192);
BPF_TABLE("hash", struct pydbt_no_room_key, struct pydbt_row, pydbt_wr_spare, 2048);
BPF_TABLE("lru_hash", struct pydbt_writer_key, struct pydbt_writer, pydbt_wr_tasks, 4096);
BPF_F_TABLE("array", u32, struct pydbt_set, pydbt_wr_sets, 1 << SET_BITS, MMAPABLE);
BPF_TABLE("array", u32, struct pydbt_slots, pydbt_wr_slots, 1 << SET_BITS);

static u64 (*current_task_typed)(void) = (void *)158;	/* bpf_get_current_task_btf(), v5.11 */

/* ---- the sums ------------------------------------------------------------ */

static __always_inline void add_to(struct pydbt_row *row, u64 dirtied, u64 written)
{
	if (dirtied)
		__sync_fetch_and_add(&row->dirtied, dirtied);
	if (written)
		__sync_fetch_and_add(&row->written, written);
}

static __always_inline void add_without_file(struct pydbt_row_key *key, u64 dirtied, u64 written)
{
	struct pydbt_no_room_key short_key = {.writer = key->writer, .kind = key->kind};
	struct pydbt_row *row = pydbt_wr_spare.lookup(&short_key), none = {};
	struct pydbt_totals *totals;
	u32 zero = 0;

	totals = pydbt_wr_totals.lookup(&zero);
	if (!totals)
		return;
	if (!row) {
		pydbt_wr_spare.insert(&short_key, &none);
		row = pydbt_wr_spare.lookup(&short_key);
	}
	if (row) {
		add_to(row, dirtied, written);
		__sync_fetch_and_add(&totals->without_file, 1);
		return;
	}
	__sync_fetch_and_add(&totals->lost_rows, 1);
	__sync_fetch_and_add(&totals->lost_dirtied, dirtied);
	__sync_fetch_and_add(&totals->lost_written, written);
}

static __always_inline void add_row(struct pydbt_row_key *key, u64 dirtied, u64 written)
{
	struct pydbt_row *row = pydbt_wr_rows.lookup(key), none = {};

	if (!row) {
		pydbt_wr_rows.insert(key, &none);
		row = pydbt_wr_rows.lookup(key);
	}
	if (row)
		add_to(row, dirtied, written);
	else
		add_without_file(key, dirtied, written);
}

#define BEGIN_NOW 1

/* Nothing is counted before the places of the volume are known: its files would be taken for others. */
static __always_inline bool has_begun(struct pydbt_settings *settings, u64 tick)
{
	if (settings->begun == BEGIN_NOW)
		settings->begun = tick;
	return settings->begun;
}

/* ---- who ----------------------------------------------------------------- */

static __always_inline u32 new_number(void)
{
	u32 zero = 0;
	struct pydbt_totals *totals = pydbt_wr_totals.lookup(&zero);

	return totals ? fetch_and_add(&totals->numbers, 1) + 1 : 0;
}

/* The number of the task's process. What was found last on this CPU serves for a jiffy, and then as long as nothing has changed. */
static __always_inline u32 writer_now(struct cpu_state *state, u64 tick)
{
	u64 task = bpf_get_current_task(), process, cgroup, typed, leader;
	struct pydbt_writer_key key = {};
	struct pydbt_writer *known, fresh = {};

	if (state->task == task && state->task_tick == tick)
		return state->writer;
	process = bpf_get_current_pid_tgid() >> 32;
	cgroup = bpf_get_current_cgroup_id();
	state->task_tick = tick;
	if (state->task == task && state->process == process && state->cgroup == cgroup)
		return state->writer;
	typed = current_task_typed();
	leader = LOAD64(typed, OFF_task_struct_group_leader);
	key.started = LOAD64(leader, OFF_task_struct_start_boottime);
	key.cgroup = cgroup;
	key.process = process;
	key.user = bpf_get_current_uid_gid();
	state->kernel = !!(LOAD32(typed, OFF_task_struct_flags) & TASK_KERNEL);
	known = pydbt_wr_tasks.lookup(&key);
	if (known) {
		read_kernel(known->name, sizeof(known->name), leader + OFF_task_struct_comm);	/* exec() renames */
		state->writer = known->number;
	} else {
		fresh.number = new_number();
		fresh.kernel = state->kernel;
		read_kernel(fresh.name, sizeof(fresh.name), leader + OFF_task_struct_comm);
		state->writer = fresh.number;
		if (pydbt_wr_tasks.update(&key, &fresh)) {
			u32 zero = 0;
			struct pydbt_totals *totals = pydbt_wr_totals.lookup(&zero);

			if (totals)
				__sync_fetch_and_add(&totals->lost_writers, 1);
			state->writer = 0;
		}
	}
	state->task = task;
	state->process = process;
	state->cgroup = cgroup;
	return state->writer;
}

/* Bytes of one row after the other are counted on this CPU, and added to their row when another one comes. */
static __always_inline void choose_row(struct cpu_state *state, u32 kind, u32 writer, bool of_file, bool dirtied)
{
	u64 inode = of_file ? state->file.inode : 0;
	u32 device = of_file ? state->file.device : 0, generation = of_file ? state->file.generation : 0;

	if (state->row.inode == inode && state->row.writer == writer && state->row.kind == kind &&
	    state->row.device == device && state->row.generation == generation)
		return;
	if (state->pending)
		add_row(&state->row, dirtied ? state->pending : 0, dirtied ? 0 : state->pending);
	state->pending = 0;
	state->row.inode = inode;
	state->row.device = device;
	state->row.generation = generation;
	state->row.writer = writer;
	state->row.kind = kind;
}

/* ---- a page becomes dirty ------------------------------------------------ */

static __always_inline void look_up_place(struct seen_file *file)
{
	u32 *place = pydbt_wr_places.lookup(&file->device);

	file->place = place ? *place | PLACE_OURS : 0;
}

static __always_inline u64 hash_of(const struct seen_file *file, u64 chunk)
{
	u64 hash = (file->inode ^ (u64)file->device << 40) * 0x9e3779b97f4a7c15 + chunk;

	hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93;
	return (hash ^ hash >> 29) * 0x9e3779b97f4a7c15;
}

static __always_inline u32 tag_of(u64 hash)
{
	return (u32)hash | 1;	/* 0 is a free place */
}

static __always_inline u32 place_of_set(u64 hash)
{
	return hash >> (64 - SET_BITS);
}

static __always_inline struct pydbt_settings *settings_now(void)
{
	u32 zero = 0;

	return pydbt_wr_sample.lookup(&zero);
}

static __always_inline struct pydbt_set *set_of(u64 hash)
{
	u32 place = place_of_set(hash);

	return pydbt_wr_sets.lookup(&place);
}

static __always_inline struct pydbt_slots *slots_of(u64 hash)
{
	u32 place = place_of_set(hash);

	return pydbt_wr_slots.lookup(&place);
}

/* WAYS when it is not there. */
static __always_inline u32 way_of(const struct pydbt_set *set, u32 tag)
{
	return set->tag[0] == tag ? 0 : set->tag[1] == tag ? 1 : set->tag[2] == tag ? 2 : set->tag[3] == tag ? 3 : WAYS;
}

/* The place for a chunk that has none: the one that was dirtied longest ago. */
static __always_inline u32 oldest_way(const struct pydbt_set *set, u32 tick)
{
	u32 age0 = tick - set->tick[0], age1 = tick - set->tick[1], age2 = tick - set->tick[2], age3 = tick - set->tick[3];
	u32 low = age0 >= age1 ? 0 : 1, high = age2 >= age3 ? 2 : 3;
	u32 age_low = age0 >= age1 ? age0 : age1, age_high = age2 >= age3 ? age2 : age3;

	return age_low >= age_high ? low : high;
}

static __always_inline void own_chunk(struct cpu_state *state, u64 chunk, u32 writer)
{
	u64 hash = hash_of(&state->file, chunk);
	struct pydbt_settings *settings = settings_now();
	struct pydbt_set *set;
	u32 way;

	if (!settings || hash >> SAMPLE_SHIFT & settings->remembered)
		return;
	set = set_of(hash);
	if (!set)
		return;
	way = way_of(set, tag_of(hash));
	if (way == WAYS)
		way = oldest_way(set, (u32)state->tick);
	way &= WAYS - 1;
	set->tag[way] = tag_of(hash);
	set->owner[way] = writer;
	set->tick[way] = state->tick;
}

static __always_inline void own_pages(struct cpu_state *state, u64 index, u32 pages, u32 writer)
{
	u64 hash = hash_of(&state->file, index >> CHUNK_SHIFT);
	struct pydbt_settings *settings = settings_now();
	u32 way, owner, step = 0;
	struct pydbt_slots *slots;
	struct pydbt_set *set;

	if (!settings || hash >> SAMPLE_SHIFT & settings->remembered)
		return;
	set = set_of(hash);
	if (!set)
		return;
	way = way_of(set, tag_of(hash));
	if (way == WAYS) {
		way = oldest_way(set, (u32)state->tick) & (WAYS - 1);
		set->tag[way] = tag_of(hash);
		set->owner[way] = writer;
		set->tick[way] = state->tick;
		return;
	}
	way &= WAYS - 1;
	set->tick[way] = state->tick;
	owner = set->owner[way];
	if (owner == writer)
		return;
	slots = slots_of(hash);
	if (!slots)
		return;
	if (!(owner & MIXED)) {
		__builtin_memset(&slots->slot[way * CHUNK_PAGES], 0, CHUNK_PAGES * sizeof(u32));
		set->owner[way] = owner | MIXED;
	}
	state->chunk = ~0ULL;	/* every page of it counts from now on */
	LOOP
	do {
		HEAD;
		slots->slot[way * CHUNK_PAGES + ((index + step) & (CHUNK_PAGES - 1))] = writer;
		if (--state->left == 0)
			break;
	} while (++step < CHUNK_PAGES);
}

/* What is left is counted in the map, where the verifier does not follow it. */
static __always_inline void remember(struct cpu_state *state, u64 index, u32 pages, u32 writer)
{
	u64 chunk = index >> CHUNK_SHIFT;
	u32 step = 0;

	state->left = pages;
	if (pages < CHUNK_PAGES) {
		own_pages(state, index, pages, writer);
		return;
	}
	LOOP
	do {	/* large folios are aligned: whole chunks */
		HEAD;
		own_chunk(state, chunk + step, writer);
		state->left -= CHUNK_PAGES;
		if ((s32)state->left <= 0)
			break;
	} while (++step < FOLIO_CHUNKS);
}

#ifndef NO_DIRTYING
int pydbt_wr_dirtied(struct bpf_raw_tracepoint_args *ctx)
{
	u64 folio = ctx->args[ARG_dirty_page], mapping = ctx->args[ARG_dirty_mapping];
	u64 host, index, tick;
	u32 key = STATE_DIRTIED, pages = 1, writer = 0, kind;
	struct cpu_state *state = pydbt_wr_state.lookup(&key);
	struct pydbt_settings *settings;

	if (!state || !folio || !mapping)	/* newer verifiers want to see that neither is NULL */
		return 0;
	host = LOAD64(mapping, OFF_address_space_host);
	index = LOAD64(folio, OFF_dirty_index);
#ifdef OFF_folio_pages
	if (LOAD64(folio, OFF_page_flags) & (1ULL << PG_head))
		pages = LOAD32(folio, OFF_folio_pages);
#endif
	tick = bpf_jiffies64();
	/* As the page before it: it belongs to the same owner's chunk. */
	if (state->host == host && state->tick == tick && state->chunk == index >> CHUNK_SHIFT && pages == 1 &&
	    state->task == bpf_get_current_task()) {
		state->pending += PAGE_BYTES;
		return 0;
	}
	if (state->host != host || state->tick != tick) {
		state->chunk = ~0ULL;
		settings = settings_now();
		if (!settings || !has_begun(settings, tick))
			return 0;
		if ((LOAD("u16", host, OFF_inode_i_mode) & FILE_TYPE) == FILE_BLOCK) {
			state->file.device = LOAD32(host, OFF_inode_i_rdev);
			state->file.inode = 0;
			state->file.generation = 0;
			state->file.is_block = 1;
		} else {
			state->file.device = LOAD32(LOAD64(host, OFF_inode_i_sb), OFF_super_block_s_dev);
			state->file.inode = LOAD64(host, OFF_inode_i_ino);
			state->file.generation = LOAD32(host, OFF_inode_i_generation);
			state->file.is_block = 0;
		}
		look_up_place(&state->file);
		state->host = host;
		state->tick = tick;
	}
	if (!state->file.place)
		return 0;
	state->chunk = index >> CHUNK_SHIFT;
	kind = state->file.is_block && state->file.place & PLACE_MOUNTED ? KIND_METADATA : KIND_BUFFERED;
	if (kind == KIND_METADATA) {
		state->task = bpf_get_current_task();
		state->task_tick = 0;	/* whose number was not looked up */
		state->process = 0;
	} else {
		writer = writer_now(state, tick);
		state->looks++;
		remember(state, index, pages, writer);
	}
	choose_row(state, kind, writer, true, true);
	state->pending += pages * PAGE_BYTES;
	return 0;
}
#endif

/* ---- a write is submitted ------------------------------------------------ */

static __always_inline bool our_bio(u64 block_device)
{
	u64 disk;

	if (LOAD32(block_device, OFF_block_device_bd_dev) == LOADED_VALUE(VALUE_DISK_NUMBER))
		return true;
	disk = LOAD64(block_device, OFF_block_device_bd_disk);
	return LOAD32(disk, OFF_gendisk_major) == LOADED_VALUE(VALUE_DISK_MAJOR) &&
		LOAD32(disk, OFF_gendisk_first_minor) == LOADED_VALUE(VALUE_DISK_MINOR);
}

/* Bytes of the write that lie in the volume. */
static __always_inline u64 bytes_inside(u64 sector, u32 bytes)
{
	u64 end = sector + (bytes >> 9), first = LOADED_VALUE(VALUE_VOLUME_START), last = LOADED_VALUE(VALUE_VOLUME_END);

	if (sector < first)
		sector = first;
	if (end > last)
		end = last;
	return sector < end ? (end - sector) << 9 : 0;
}

struct seen_page {
	u64 mapping;
	u64 index;
};

static __always_inline int see_page(struct seen_page *seen, u64 page)
{
	u64 words[PAGE_WORDS], head, tail_pages = 0;

	if (read_kernel(words, sizeof(words), page))
		return -1;
	head = head_of(page, words[OFF_page_compound / 8]);
	if (head != page) {
		tail_pages = (page - head) / SIZE_page;
		if (read_kernel(words, sizeof(words), head))
			return -1;
	}
	seen->mapping = words[OFF_page_mapping / 8];
	seen->index = words[OFF_page_index / 8] + tail_pages;
	return 0;
}

/* The page in the vector at this address, `skip` bytes behind its start. */
static __always_inline int see_vector(struct seen_page *seen, u64 vector, u32 skip, u32 *bytes)
{
	u64 words[SIZE_bio_vec / 8];
	u32 offset;

	if (read_kernel(words, sizeof(words), vector) || see_page(seen, words[OFF_bio_vec_bv_page / 8]))
		return -1;
	offset = *(u32 *)((char *)words + OFF_bio_vec_bv_offset) + skip;
	*bytes = *(u32 *)((char *)words + OFF_bio_vec_bv_len) - skip;
	seen->index += offset >> KERNEL_PAGE_SHIFT;
	return 0;
}

/* The first page of the bio. Where the verifier follows the pointers from the bio on, without a call. */
static __always_inline int see_first(struct cpu_state *state, struct seen_page *seen, u64 vectors, u32 at, u32 skip)
{
	u32 bytes;
#if TYPED_PAGES
	u64 page;

	if (!at) {
		page = LOAD64(vectors, OFF_bio_vec_bv_page);
		state->copy[0] = page;
		state->copy[1] = LOAD64(page, OFF_page_compound);
		state->copy[2] = LOAD64(page, OFF_page_mapping);
		HEAD;
		if (!(state->copy[1] & 1)) {
			seen->mapping = state->copy[2];
			seen->index = LOAD64(page, OFF_page_index) +
				((LOAD32(vectors, OFF_bio_vec_bv_offset) + skip) >> KERNEL_PAGE_SHIFT);
			return 0;
		}
	}
#endif
	return see_vector(seen, state->vector, skip, &bytes);
}

/* What file an inode is, into the state; the last answer serves for a jiffy. */
static __always_inline void see_inode(struct cpu_state *state, u64 inode, u64 tick)
{
	u64 number = 0, block = 0;
	u32 device = 0, generation = 0;
	u16 mode = 0;

	if (state->host == inode && state->tick == tick)
		return;
	read_kernel(&mode, sizeof(mode), inode + OFF_inode_i_mode);
	if ((mode & FILE_TYPE) == FILE_BLOCK) {
		read_kernel(&device, sizeof(device), inode + OFF_inode_i_rdev);
	} else {
		read_kernel(&block, sizeof(block), inode + OFF_inode_i_sb);
		read_kernel(&device, sizeof(device), block + OFF_super_block_s_dev);
		read_kernel(&number, sizeof(number), inode + OFF_inode_i_ino);
		read_kernel(&generation, sizeof(generation), inode + OFF_inode_i_generation);
	}
	state->file.inode = number;
	state->file.device = device;
	state->file.generation = generation;
	state->file.is_block = (mode & FILE_TYPE) == FILE_BLOCK;
	look_up_place(&state->file);
	state->host = inode;
	state->tick = tick;
}

static __always_inline bool is_journal(u64 end, u64 private)
{
	u64 end_of_buffer = end;

	if (!end)
		return false;
	if (end == LOADED_VALUE(VALUE_END_OF_XFS_LOG))
		return true;
#ifdef OFF_buffer_head_b_end_io
	if (end != LOADED_VALUE(VALUE_END_OF_BUFFER))
		return false;
	end_of_buffer = 0;
	read_kernel(&end_of_buffer, sizeof(end_of_buffer), private + OFF_buffer_head_b_end_io);
#endif
	return end_of_buffer && (end_of_buffer == LOADED_VALUE(VALUE_END_OF_JBD2) ||
				 end_of_buffer == LOADED_VALUE(VALUE_END_OF_FAST_COMMIT));
}

static __always_inline void add_written(struct cpu_state *state, u32 kind, u32 writer, bool of_file, u64 bytes)
{
	choose_row(state, kind, writer, of_file, false);
	state->pending += bytes;
}

static __always_inline void end_run(struct cpu_state *state)
{
	u32 writer = state->run_writer;

	if (state->run_bytes)
		add_written(state, writer ? KIND_BUFFERED : state->without_writer, writer, true, state->run_bytes);
	state->run_bytes = 0;
}

/* More bytes of the walk belong to this writer (0: to nobody who is known). */
static __always_inline void take(struct cpu_state *state, u32 writer, u64 bytes)
{
	if (bytes > state->left)
		bytes = state->left;
	if (state->run_writer != writer)
		end_run(state);
	state->run_writer = writer;
	state->run_bytes += bytes + state->skipped;
	state->skipped = 0;
	state->left -= bytes;
}

static __always_inline void skip_bytes(struct cpu_state *state, u64 bytes)
{
	if (bytes > state->left)
		bytes = state->left;
	state->skipped += bytes;
	state->left -= bytes;
}

/* Who dirtied this page, 0 when it is not known; with MIXED where the pages beside it may have others. */
static __always_inline u32 owner_of(struct cpu_state *state, u64 index)
{
	u64 hash = hash_of(&state->file, index >> CHUNK_SHIFT);
	struct pydbt_settings *settings = settings_now();
	struct pydbt_slots *slots;
	struct pydbt_set *set;
	u32 way, owner, other;

	if (!settings)
		return 0;
	if (hash >> SAMPLE_SHIFT & settings->looked_up)
		return NOT_SAMPLED;
	set = set_of(hash);
	if (!set)
		return 0;
	way = way_of(set, tag_of(hash));
	if (way == WAYS)
		return 0;
	way &= WAYS - 1;
	owner = set->owner[way];
	if (!(owner & MIXED))
		return owner;
	slots = slots_of(hash);
	if (!slots)
		return 0;
	other = slots->slot[way * CHUNK_PAGES + (index & (CHUNK_PAGES - 1))];
	return other ? other | MIXED : owner;
}

/*
 * The next pages of the bio. One run of a file's pages goes chunk by chunk, and page
 * by page where a chunk has several owners; of a long one a chunk stands for the
 * chunks behind it. Pages from here and there go vector by vector.
 */
static __always_inline bool walk_step(struct cpu_state *state)
{
	u32 bytes = 0, owner;
	struct seen_page page;
	u64 pages;

	if (state->vector) {
		if (see_vector(&page, state->vector, state->skip, &bytes))
			return false;
		state->skip = 0;
		state->vector += SIZE_bio_vec;
	} else {
		page.index = state->index;
	}
	owner = owner_of(state, page.index);
	if (!state->vector) {
		pages = CHUNK_PAGES - (page.index & (CHUNK_PAGES - 1));
		if (state->pages > WALK_CHUNKS)
			pages += state->pages / WALK_CHUNKS & ~(CHUNK_PAGES - 1ULL);
		else if (owner & MIXED)
			pages = 1;
		state->index += pages;
		bytes = pages << KERNEL_PAGE_SHIFT;
	}
	if ((owner & ~MIXED) == NOT_SAMPLED)
		skip_bytes(state, bytes);
	else
		take(state, owner & ~MIXED, bytes);
	return state->left;
}

#if LOOP_HELPER
int pydbt_steps_walk(u64 index)
{
	u32 key = STATE_SUBMITTED;
	struct cpu_state *state = pydbt_wr_state.lookup(&key);

	return !state || !walk_step(state);
}

static __always_inline void walk(struct cpu_state *state)
{
	void *callback;

	asm volatile(NUMBER_LOADED(STEPS_WALK) : "=r"(callback));
	kernel_loop(WALK_STEPS, callback, NULL, 0);
}
#else
static __always_inline void walk(struct cpu_state *state)
{
	u64 step = 0;

	LOOP
	do {
		HEAD;
		if (!walk_step(state))
			break;
	} while (++step < WALK_STEPS);
}
#endif

/* Whether the bio's last page is where it is when all of them follow each other; true where that is not told. */
static __always_inline bool is_one_run(u64 bio, u64 vectors, u64 first_index, u32 bytes)
{
	u32 count = LOAD("u16", bio, OFF_bio_bi_vcnt), length = 0;
	struct seen_page last;

	if (count < 2 || see_vector(&last, vectors + (u64)(count - 1) * SIZE_bio_vec, 0, &length))
		return true;
	return last.index + (length >> KERNEL_PAGE_SHIFT) == first_index + (bytes >> KERNEL_PAGE_SHIFT);
}

/* Memory of a process, shared memory, or that of another file: whoever submits it has it at hand. */
static __always_inline void submit_memory(struct cpu_state *state, u64 bytes, u64 tick)
{
	u32 writer = writer_now(state, tick);

	add_written(state, state->kernel ? KIND_UNKNOWN : KIND_DIRECT, state->kernel ? 0 : writer, false, bytes);
}

/* The file whose pages these are, into the state. False when the bytes belong to no file of the volume, and are counted. */
static __always_inline bool see_mapping(struct cpu_state *state, u64 mapping, u64 bytes,
					struct pydbt_settings *settings, u64 tick)
{
	u64 host = 0, dirtied = 0;

	if (!mapping || mapping & NOT_OF_A_FILE) {
		submit_memory(state, bytes, tick);
		return false;
	}
	if (state->host != mapping || state->tick != tick) {
		if (read_kernel(&host, sizeof(host), mapping + OFF_address_space_host) || !host) {
			add_written(state, KIND_UNKNOWN, 0, false, bytes);
			return false;
		}
		see_inode(state, host, tick);
		read_kernel(&dirtied, sizeof(dirtied), host + OFF_inode_dirtied_when);
		state->without_writer = (s64)(dirtied - settings->begun) < 0 ? KIND_BEFORE : KIND_UNKNOWN;
		state->host = mapping;
	}
	if (!state->file.place) {
		submit_memory(state, bytes, tick);
		return false;
	}
	if (state->file.is_block && state->file.place & PLACE_MOUNTED) {
		add_written(state, KIND_METADATA, 0, false, bytes);
		return false;
	}
	return true;
}

static __always_inline void submit_pages(struct cpu_state *state, u64 bio, u64 bytes, u32 whole_bytes,
					 struct pydbt_settings *settings, u64 tick)
{
	u64 vectors = LOAD64(bio, OFF_bio_bi_io_vec), pages = (bytes + PAGE_BYTES - 1) >> KERNEL_PAGE_SHIFT;
	u32 skip = LOAD32(bio, OFF_bio_bi_bvec_done), at = LOAD32(bio, OFF_bio_bi_idx), owner;
	struct seen_page page;
	bool is_run;

	state->vector = vectors;
	HEAD;
	vectors = state->vector;
	state->vector = vectors + (u64)at * SIZE_bio_vec;
	if (see_first(state, &page, LOAD64(bio, OFF_bio_bi_io_vec), at, skip)) {
		add_written(state, KIND_UNKNOWN, 0, false, bytes);
		return;
	}
	state->looks++;
	if (!see_mapping(state, page.mapping, bytes, settings, tick))
		return;
	/* Most fit into one chunk. Then one look tells all, and where the chunk is no sample no page behind the first is looked at. */
	state->run_writer = MIXED;
	if ((page.index & (CHUNK_PAGES - 1)) + pages <= CHUNK_PAGES) {
		owner = owner_of(state, page.index);
		if ((owner & ~MIXED) == NOT_SAMPLED) {
			state->skipped += bytes;
			return;
		}
		state->run_writer = pages <= 1 ? owner & ~MIXED : owner;
	}
	HEAD;
	owner = state->run_writer;	/* out of the map: the verifier does not follow the rest for each way to here */
	is_run = pages <= 1 || is_one_run(bio, vectors, page.index, whole_bytes);
	if (is_run && !(owner & MIXED)) {
		add_written(state, owner ? KIND_BUFFERED : state->without_writer, owner, true, bytes + state->skipped);
		state->skipped = 0;
		return;
	}
	state->left = bytes;
	state->index = page.index;
	state->pages = pages;
	state->skip = skip;
	state->run_bytes = 0;
	state->run_writer = 0;
	if (is_run)
		state->vector = 0;
	walk(state);
	end_run(state);
	if (state->left)
		add_written(state, KIND_UNKNOWN, 0, false, state->left);
}

/* Direct I/O through iomap (ext4, XFS): the file is in its request. Under load the file of one in some is looked at, by
 * chance, and the writes of the same process behind it count as of that file. Whose they are is always seen. */
static __always_inline void submit_direct(struct cpu_state *state, u64 private, u64 bytes, u64 tick)
{
	u64 request = 0, file = 0, inode = 0;
	u32 writer = writer_now(state, tick);
	struct pydbt_settings *settings = settings_now();

	state->looks++;
	state->chance = state->chance * 0x5851f42d4c957f2d + 1;
	if (settings && state->chance >> 40 & settings->looked_up && state->row.kind == KIND_DIRECT &&
	    state->row.writer == writer) {
		state->pending += bytes;
		return;
	}
#ifdef OFF_iomap_dio_iocb
	read_kernel(&request, sizeof(request), private + OFF_iomap_dio_iocb);
	read_kernel(&file, sizeof(file), request + OFF_kiocb_ki_filp);
	read_kernel(&inode, sizeof(inode), file + OFF_file_f_inode);
#endif
	if (inode)
		see_inode(state, inode, tick);
	add_written(state, KIND_DIRECT, writer, inode && state->file.place, bytes);
}

int pydbt_wr_submitted(struct bpf_raw_tracepoint_args *ctx)
{
	u64 bio = ctx->args[ARG_block_bio_queue_bio], bytes, end, private, tick;
	u32 key = STATE_SUBMITTED, opf, op, whole_bytes;
	struct pydbt_settings *settings;
	struct cpu_state *state;

	opf = LOAD32(bio, OFF_bio_bi_opf);
	op = opf & OP_MASK;
	if (!(op & 1) || !our_bio(LOAD64(bio, OFF_bio_bi_bdev)))
		return 0;
	whole_bytes = LOAD32(bio, OFF_bio_bi_size);
	bytes = whole_bytes ? bytes_inside(LOAD64(bio, OFF_bio_bi_sector), whole_bytes) : 0;
	state = pydbt_wr_state.lookup(&key);
	settings = settings_now();
	if (!bytes || !state || !settings)
		return 0;
	tick = bpf_jiffies64();
	if (!has_begun(settings, tick))
		return 0;
	end = (u64)LOAD64(bio, OFF_bio_bi_end_io);
	private = (u64)LOAD64(bio, OFF_bio_bi_private);
	if (op != OP_WRITE) {	/* no data: discards, zeroes */
		u32 writer = writer_now(state, tick);

		add_written(state, state->kernel ? KIND_METADATA : KIND_DIRECT, state->kernel ? 0 : writer, false, bytes);
		return 0;
	}
	if (end && end == LOADED_VALUE(VALUE_END_OF_DIRECT))
		submit_direct(state, private, bytes, tick);
	else if (is_journal(end, private))
		add_written(state, KIND_JOURNAL, 0, false, bytes);
	else if (opf & (1U << BIT_META))
		add_written(state, KIND_METADATA, 0, false, bytes);
	else
		submit_pages(state, bio, bytes, whole_bytes, settings, tick);
	return 0;
}
