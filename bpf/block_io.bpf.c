/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Block I/O of one device: counts and latencies, and with EVENTS one record for each I/O as well.
 *
 * Compiled once for a kernel (pydbt/kernel/tracing/block_io.py), with -D:
 *   ARG_*, OFF_*, SIZE_*, OP_*, BIT_*	the running kernel, from its own BTF
 *   EVENTS				1: records with process and file
 * What differs between devices comes in when the code is loaded: VALUE_*.
 *
 * An I/O of a device with requests is one request, as the disk gets it: it is made, handed to the driver (issued), and
 * completes. Queue time is the first part, device time the second. The kernel itself notes when a request is made; with
 * EVENTS its beginning is the submission of its first bio. An I/O of a bio-based device (dm, md, zram) is one bio, and
 * only the whole time is known.
 *
 * The moments are kept in two tables whose places are chosen by the address of the bio or request: an array in which
 * another may take the place costs a tenth of a hash table. What lost its place has no latency.
 *
 * All I/Os are counted. Of how many the time is taken is told in pydbt_control: a look at the clock is half of all cost.
 */

#include "observing.h"
#include "kernel_fixes.h"

#define VALUE_DISK_NUMBER	0x7079646277000001	/* as in block_device.bd_dev */
#define VALUE_DISK_MAJOR	0x7079646277000002
#define VALUE_DISK_MINOR	0x7079646277000003
#define VALUE_START_SECTOR	0x7079646277000004	/* of the device on its disk */
#define VALUE_END_SECTOR	0x7079646277000005
#define VALUE_CELL_SHIFT	0x7079646277000006	/* log2 of the sectors of a cell of the heat grid */
#define VALUE_WANTED		0x7079646277000007	/* of the records: one bit for each CLASS_* */
#define VALUE_LEAST_NS		0x7079646277000008	/* of the records: the least latency */
#define VALUE(name) LOADED_VALUE(VALUE_##name)

enum { CLASS_READ, CLASS_WRITE, CLASS_FLUSH, CLASS_DISCARD, CLASSES };
enum { QUEUE, DEVICE, TOTAL, PARTS };

#define BUCKETS 256	/* of a latency: eight for each power of two, from 256 ns: see bucket_of() */
#define SIZES 32	/* powers of two of sectors */
#define CELLS 128
#define ENDS 256
#define PLACES_BITS 14
#define UNKNOWN ~0ULL

#define FLAG_ERROR 1
#define FLAG_SEQUENTIAL 2
#define FLAG_FUA 4
#define FLAG_META 8
#define FLAG_SYNC 16
#define FLAG_READ_AHEAD 32
#define FLAG_KERNEL 64		/* submitted by a thread of the kernel */
#define FLAG_DEVICE_CACHE 128	/* from the page cache of a block device: metadata of a file system, mostly */
#define FLAG_NO_SUBMITTER 256	/* the submission was not seen */
#define FLAG_DIRECT 512		/* from or to the memory of a program */

struct pydbt_io_figures {
	u64 count;
	u64 bytes;
	u64 errors;
	u64 sequential;
	u64 begun;
	u64 lost;	/* records for which the ring had no room */
	u64 latency[PARTS][BUCKETS];
	u64 sizes[SIZES];
	u64 cells[CELLS];	/* sectors */
};

struct bio_place {
	u64 bio;
	u64 time_ns;
	u64 sector;
	u32 bytes;
	u32 flags;
#if EVENTS
	u64 inode;
	u32 generation;
	u32 file_system;	/* super_block.s_dev */
	u32 process;
	u32 thread;
	char name[16];
#endif
};

struct request_place {
	u64 request;
	u64 issued_ns;
	u64 made_ns;	/* 0: unknown. Another one: this place was left over by an earlier request of the same address */
	u32 flags;
	u32 unused;	/* 32 bytes: two neighbours, of which one is chosen, are one line of the cache */
#if EVENTS
	u64 queued_ns;	/* when its first bio was submitted; else as made_ns */
	u64 bio;
#endif
};

/* What the controller may change. */
struct pydbt_io_control {
	u64 every_mask;	/* of those the time is taken whose number, or hash, has none of these bits: 0 is all, 7 one of eight */
};

BPF_TABLE("array", u32, struct pydbt_io_control, pydbt_control, 1);
BPF_TABLE("percpu_array", u32, struct pydbt_io_figures, pydbt_figures, CLASSES);
BPF_F_TABLE("array", u32, struct bio_place, pydbt_bios, 1 << PLACES_BITS, MMAPABLE);
BPF_F_TABLE("array", u32, struct request_place, pydbt_requests, 1 << PLACES_BITS, MMAPABLE);
BPF_TABLE("array", u32, u64, pydbt_ends, CLASSES * ENDS);

#if EVENTS
struct pydbt_io_record {
	u64 time_ns;	/* of the completion; CLOCK_MONOTONIC */
	u64 sector;	/* from the start of the device */
	u64 queue_ns;
	u64 device_ns;
	u64 total_ns;
	u64 inode;
	u32 bytes;
	u32 process;
	u32 thread;
	u32 generation;
	u32 file_system;
	u16 flags;
	u8 class;
	u8 unused;
	char name[16];
};

BPF_RINGBUF_OUTPUT(pydbt_events, 1);	/* its size is the loader's */
#endif

/* ---- which device, which operation ---------------------------------------- */

static __always_inline bool our_disk(u64 disk)
{
	return LOAD32(disk, OFF_gendisk_major) == VALUE(DISK_MAJOR) &&
		LOAD32(disk, OFF_gendisk_first_minor) == VALUE(DISK_MINOR);
}

static __always_inline bool our_bio(u64 bio)
{
	u64 device = LOAD64(bio, OFF_bio_bi_bdev);

	return LOAD32(device, OFF_block_device_bd_dev) == VALUE(DISK_NUMBER) ||
		our_disk(LOAD64(device, OFF_block_device_bd_disk));
}

/* Names of a bio and a request of the device: how far from its gendisk they lie. */
static __always_inline u64 name_of_bio(u64 bio)
{
	u64 disk = LOAD64(LOAD64(bio, OFF_bio_bi_bdev), OFF_block_device_bd_disk);

	return DISTANCE(bio, disk);
}

static __always_inline u64 disk_of_request(u64 request)
{
	return LOAD64(LOAD64(request, OFF_request_q), OFF_request_queue_disk);
}

static __always_inline bool our_request(u64 request)
{
	return LOAD32(LOAD64(request, OFF_request_part), OFF_block_device_bd_dev) == VALUE(DISK_NUMBER) ||
		our_disk(LOAD64(LOAD64(request, OFF_request_q), OFF_request_queue_disk));
}

/* Sectors are the disk's own: the block layer remaps a partition's before it traces. */
static __always_inline bool in_device(u64 sector)
{
	return sector >= VALUE(START_SECTOR) && sector < VALUE(END_SECTOR);
}

/* As /sys/block/DISK/stat groups them. */
static __always_inline u32 class_of(u32 op)
{
	if (op == OP_DISCARD)
		return CLASS_DISCARD;
	return op == OP_FLUSH ? CLASS_FLUSH : op & 1;
}

/* Commands of programs to the driver: they have no place on the device, and the kernel's statistics leave them out. */
static __always_inline bool is_passthrough(u32 op)
{
	return op == OP_DRV_IN || op == OP_DRV_OUT || op == OP_SCSI_IN || op == OP_SCSI_OUT;
}

static __always_inline u32 flags_of(u32 opf)
{
	return (opf >> BIT_FUA & 1) * FLAG_FUA | (opf >> BIT_META & 1) * FLAG_META |
		(opf >> BIT_SYNC & 1) * FLAG_SYNC | (opf >> BIT_RAHEAD & 1) * FLAG_READ_AHEAD;
}

/* ---- the two tables ------------------------------------------------------- */

static __always_inline u32 place_of(u64 name)
{
	return name * 0x9e3779b97f4a7c15 >> (64 - PLACES_BITS);
}

/* Of two places the free one, else the one that was taken earlier: a bio that was merged into another's request
 * never gives its place back. (bcc finds no map in a macro.) */
static __always_inline struct bio_place *place_for_bio(u64 bio)
{
	u32 first = place_of(bio), second = first ^ 1;
	struct bio_place *place = pydbt_bios.lookup(&first), *other;

	if (place && place->bio && place->bio != bio) {
		other = pydbt_bios.lookup(&second);
		if (other && (!other->bio || other->time_ns < place->time_ns))
			place = other;
	}
	return place;
}

static __always_inline struct bio_place *place_of_bio(u64 bio)
{
	u32 first = place_of(bio), second = first ^ 1;
	struct bio_place *place = pydbt_bios.lookup(&first);

	if (place && place->bio != bio) {
		place = pydbt_bios.lookup(&second);
		if (place && place->bio != bio)
			place = NULL;
	}
	return place;
}

static __always_inline struct request_place *place_for_request(u64 request)
{
	u32 first = place_of(request), second = first ^ 1;
	struct request_place *place = pydbt_requests.lookup(&first), *other;

	if (place && place->request && place->request != request) {
		other = pydbt_requests.lookup(&second);
		if (other && (!other->request || other->issued_ns < place->issued_ns))
			place = other;
	}
	return place;
}

static __always_inline struct request_place *place_of_request(u64 request)
{
	u32 first = place_of(request), second = first ^ 1;
	struct request_place *place = pydbt_requests.lookup(&first);

	if (place && place->request != request) {
		place = pydbt_requests.lookup(&second);
		if (place && place->request != request)
			place = NULL;
	}
	return place;
}

/* ---- figures -------------------------------------------------------------- */

/* pydbt/core/seen/latency.py has the same rule. */
static __always_inline u32 bucket_of(u64 ns)
{
	u32 power;

	if (ns < 256)
		return 0;
	if (ns >= 14ULL << 36)	/* a quarter of an hour */
		return BUCKETS - 1;
	power = log2_of(ns);
	return (power - 8) * 8 + (ns >> (power - 3) & 7) + 1;
}

static __always_inline void count_latency(struct pydbt_io_figures *figures, u32 part, u64 ns)
{
	u32 bucket;

	bucket = bucket_of(ns) & (BUCKETS - 1);
	asm volatile("" : "+r"(bucket));
	figures->latency[part][bucket & (BUCKETS - 1)]++;
}

/* Does it begin where one of the last of its kind ended? Any number of streams at once are found that way. */
static __always_inline u32 sequential(struct pydbt_io_figures *figures, u32 class, u64 sector, u32 bytes)
{
	u64 end = sector + (bytes >> 9), *place;
	u32 at = class * ENDS + (sector * 0x9e3779b97f4a7c15 >> 56), flag = 0;

	if (!bytes)
		return 0;
	place = pydbt_ends.lookup(&at);
	if (place && *place == sector) {
		flag = FLAG_SEQUENTIAL;
		figures->sequential++;
	}
	at = class * ENDS + (end * 0x9e3779b97f4a7c15 >> 56);
	place = pydbt_ends.lookup(&at);
	if (place)
		*place = end;
	return flag;
}

static __always_inline void count(struct pydbt_io_figures *figures, u64 sector, u32 bytes)
{
	u32 size = log2_of(bytes >> 9);
	u64 cell = (sector - VALUE(START_SECTOR)) >> VALUE(CELL_SHIFT);

	figures->count++;
	figures->bytes += bytes;
	if (bytes) {
		figures->sizes[size & (SIZES - 1)]++;
		figures->cells[cell & (CELLS - 1)] += bytes >> 9;
	}
}

static __always_inline u64 every_mask(void)
{
	u32 zero = 0;
	struct pydbt_io_control *control = pydbt_control.lookup(&zero);

	return control ? control->every_mask : 0;
}

/* Is the time of this request taken? Its end tells the same as its beginning: so no table is looked into for the others,
 * which would be a line of memory that is seldom at hand. Where the kernel does not note when it was made, of all. */
static __always_inline bool is_timed(u64 name, u64 made_ns)
{
	u64 mask = every_mask();

	return !mask || !made_ns || !((name ^ made_ns) * 0x9e3779b97f4a7c15 >> 32 & mask);
}

struct ended {
	u64 sector;
	u64 queue_ns;
	u64 device_ns;
	u64 total_ns;
	u32 bytes;
	u32 class;
	u32 flags;
};

#if EVENTS
static __always_inline void emit(struct pydbt_io_figures *figures, const struct ended *io, u64 now,
				 const struct bio_place *place)
{
	struct pydbt_io_record *record;

	if (!(VALUE(WANTED) >> io->class & 1))
		return;
	if (VALUE(LEAST_NS) && (io->total_ns == UNKNOWN || io->total_ns < VALUE(LEAST_NS)))
		return;
	record = pydbt_events.ringbuf_reserve(sizeof(*record));
	if (!record) {
		figures->lost++;
		return;
	}
	record->time_ns = now;
	record->sector = io->bytes ? io->sector - VALUE(START_SECTOR) : 0;
	record->queue_ns = io->queue_ns;
	record->device_ns = io->device_ns;
	record->total_ns = io->total_ns;
	record->bytes = io->bytes;
	record->flags = io->flags;
	record->class = io->class;
	record->unused = 0;
	if (place) {
		record->inode = place->inode;
		record->generation = place->generation;
		record->file_system = place->file_system;
		record->process = place->process;
		record->thread = place->thread;
		__builtin_memcpy(record->name, place->name, sizeof(record->name));
		record->flags |= place->flags & (FLAG_KERNEL | FLAG_DEVICE_CACHE | FLAG_DIRECT);
	} else {
		record->inode = 0;
		record->generation = 0;
		record->file_system = 0;
		record->process = 0;
		record->thread = 0;
		__builtin_memset(record->name, 0, sizeof(record->name));
		record->flags |= FLAG_NO_SUBMITTER;
	}
	pydbt_events.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

/* The file whose page comes first: where memory of a program is written or read directly there is none. */
static __always_inline void find_file(struct bio_place *place, u64 bio)
{
	u64 page[PAGE_WORDS], inode[INODE_WORDS], mapping, host, head;
	u64 address = LOAD64(LOAD64(bio, OFF_bio_bi_io_vec), OFF_bio_vec_bv_page);
	u32 number;

	if (read_kernel(page, sizeof(page), address))
		return;
	head = head_of(address, COPIED64(page, OFF_page_compound));
	if (head != address && read_kernel(page, sizeof(page), head))
		return;
	mapping = COPIED64(page, OFF_page_mapping);
	if (mapping & 1)	/* anonymous */
		place->flags |= FLAG_DIRECT;
	if (!mapping || (mapping & 3))	/* of no file, anonymous, or movable */
		return;
	/* Memory of other kinds has other things in that place: a file's mapping lies in its inode. */
	if (read_kernel(&host, 8, mapping + OFF_address_space_host) || host + OFF_inode_i_data != mapping)
		return;
	if (read_kernel(inode, SIZE_inode_copy, host + OFF_inode_copy))
		return;
	if ((COPIED16(inode, OFF_inode_i_mode - OFF_inode_copy) & 0170000) == 0060000) {
		place->flags |= FLAG_DEVICE_CACHE;
		return;
	}
	if (read_kernel(&number, 4, COPIED64(inode, OFF_inode_i_sb - OFF_inode_copy) + OFF_super_block_s_dev))
		return;
	place->file_system = number;
	place->inode = COPIED64(inode, OFF_inode_i_ino - OFF_inode_copy);
	/* Before v6.9 it lies hundreds of bytes behind the others: no copy on a stack of 512 bytes has them all. */
	if (read_kernel(&number, 4, host + OFF_inode_i_generation))
		number = 0;
	place->generation = number;
}

static __always_inline void find_submitter(struct bio_place *place, u64 bio, u32 op)
{
	u64 numbers = bpf_get_current_pid_tgid();
	u32 task_flags = 0;

	place->inode = 0;
	place->generation = 0;
	place->file_system = 0;
	place->process = numbers >> 32;
	place->thread = numbers;
	bpf_get_current_comm(place->name, sizeof(place->name));
	read_kernel(&task_flags, 4, bpf_get_current_task() + OFF_task_struct_flags);
	if (task_flags & TASK_IS_KERNEL)
		place->flags |= FLAG_KERNEL;
	if (place->bytes && (op == OP_READ || op == OP_WRITE))
		find_file(place, bio);
}
#endif

/* ---- the programs --------------------------------------------------------- */

/* A bio's place, with its moment and submitter. */
static __always_inline void note_bio(u64 bio, u32 op, u64 sector, u32 bytes, u32 flags)
{
	u64 name = name_of_bio(bio);
	struct bio_place *place = place_for_bio(name);

	if (!place)
		return;
	place->time_ns = bpf_ktime_get_ns();
	place->sector = sector;
	place->bytes = bytes;
	place->flags = flags;
#if EVENTS
	find_submitter(place, bio, op);
#endif
	place->bio = name;
}

#if EVENTS
static __always_inline int submitted(u64 bio)
{
	u32 opf = LOAD32(bio, OFF_bio_bi_opf), op = opf & OP_MASK, bytes;
	u64 sector;

	if (!our_bio(bio) || is_passthrough(op))
		return 0;
	bytes = LOAD32(bio, OFF_bio_bi_size);
	sector = LOAD64(bio, OFF_bio_bi_sector);
	if (!bytes || in_device(sector))
		note_bio(bio, op, sector, bytes, 0);
	return 0;
}

int pydbt_bio_queue(struct bpf_raw_tracepoint_args *ctx)
{
	return submitted(ctx->args[ARG_block_bio_queue_bio]);
}

/* The front of a bio that was too long: a new bio, from the same process. */
int pydbt_bio_split(struct bpf_raw_tracepoint_args *ctx)
{
	return submitted(ctx->args[ARG_block_split_bio]);
}
#endif

int pydbt_request_issue(struct bpf_raw_tracepoint_args *ctx)
{
	u64 request = ctx->args[ARG_block_rq_issue_rq], sector, name, disk, made_ns;
	u32 opf = LOAD32(request, OFF_request_cmd_flags), op = opf & OP_MASK, bytes, flags, class = class_of(op);
	struct pydbt_io_figures *figures;
	struct request_place *place;

	if (!our_request(request) || is_passthrough(op))
		return 0;
	bytes = LOAD32(request, OFF_request___data_len);
	sector = LOAD64(request, OFF_request___sector);
	if (bytes && !in_device(sector))
		return 0;
	figures = pydbt_figures.lookup(&class);
	if (!figures)
		return 0;
	figures->begun++;
	flags = sequential(figures, class, sector, bytes);
	disk = disk_of_request(request);
	name = DISTANCE(request, disk);
	/* It is there unless the kernel's statistics of the disk are switched off. */
	made_ns = LOAD64(request, OFF_request_start_time_ns);
	if (!is_timed(name, made_ns))
		return 0;
	place = place_for_request(name);
	if (!place)
		return 0;
	place->flags = flags;
	place->made_ns = made_ns;
#if EVENTS
	u64 bio = LOAD64(request, OFF_request_bio);

	place->queued_ns = made_ns;
	place->bio = 0;
	if (bio) {
		u64 first = DISTANCE(bio, disk);
		struct bio_place *submission = place_of_bio(first);

		if (submission) {
			place->queued_ns = submission->time_ns;
			place->bio = first;
		}
	}
#endif
	place->issued_ns = bpf_ktime_get_ns();
	place->request = name;
	return 0;
}

/* A flush that was waited for is a request without data, which the disk never sees itself: several may share one flush
 * of the disk, which is a request of its own. Data that was written with a flush ends with a second, empty completion;
 * its bio was used up. */
static __always_inline bool is_waited_flush(u64 bio)
{
	return (LOAD32(bio, OFF_bio_bi_opf) >> BIT_PREFLUSH & 1) && !LOAD32(bio, OFF_bio_bi_size) &&
		!LOAD32(bio, OFF_bio_bi_idx) && !LOAD32(bio, OFF_bio_bi_bvec_done);
}

static __always_inline void flush_ended(u64 request, u64 bio, u32 flags)
{
	struct ended io = {.queue_ns = UNKNOWN, .device_ns = UNKNOWN, .class = CLASS_FLUSH, .flags = flags};
	u64 began = LOAD64(request, OFF_request_start_time_ns), now = bpf_ktime_get_ns();
	u32 class = CLASS_FLUSH;
	struct pydbt_io_figures *figures = pydbt_figures.lookup(&class);
	struct bio_place *submission = NULL;

	if (!figures)
		return;
#if EVENTS
	u64 disk = disk_of_request(request);

	submission = place_of_bio(DISTANCE(bio, disk));
	if (submission)
		began = submission->time_ns;
#endif
	if (!began)
		return;
	io.total_ns = now - began;
	count_latency(figures, TOTAL, io.total_ns);
#if EVENTS
	emit(figures, &io, now, submission);
	if (submission)
		submission->bio = 0;
#endif
}

int pydbt_request_complete(struct bpf_raw_tracepoint_args *ctx)
{
	u64 request = ctx->args[ARG_block_rq_complete_rq], now, disk, name, made_ns;
	u32 opf = LOAD32(request, OFF_request_cmd_flags), op = opf & OP_MASK, class = class_of(op);
	struct ended io = {.queue_ns = UNKNOWN, .device_ns = UNKNOWN, .total_ns = UNKNOWN, .class = class};
	struct pydbt_io_figures *figures;
	struct request_place *place;
	struct bio_place *submission = NULL;
	bool failed = (u32)ctx->args[ARG_block_rq_complete_error];

	if (!our_request(request) || is_passthrough(op))
		return 0;
	io.bytes = ctx->args[ARG_block_rq_complete_nr_bytes];
	io.sector = LOAD64(request, OFF_request___sector);
	if (!io.bytes && op != OP_FLUSH) {
		u64 bio = LOAD64(request, OFF_request_bio);

		if (bio && is_waited_flush(bio))
			flush_ended(request, bio, flags_of(opf) | (failed ? FLAG_ERROR : 0));
		return 0;
	}
	if (io.bytes && !in_device(io.sector))
		return 0;
	figures = pydbt_figures.lookup(&class);
	if (!figures)
		return 0;
	count(figures, io.sector, io.bytes);
	if (failed)
		figures->errors++;
	disk = disk_of_request(request);
	name = DISTANCE(request, disk);
	made_ns = LOAD64(request, OFF_request_start_time_ns);
	if (!is_timed(name, made_ns))
		return 0;
	place = place_of_request(name);
	if (!place || place->made_ns != made_ns)
		return 0;
	now = bpf_ktime_get_ns();
	io.device_ns = now - place->issued_ns;
	count_latency(figures, DEVICE, io.device_ns);
#if EVENTS
	made_ns = place->queued_ns;
#endif
	if (op != OP_FLUSH && made_ns) {
		io.queue_ns = place->issued_ns - made_ns;
		io.total_ns = now - made_ns;
		count_latency(figures, QUEUE, io.queue_ns);
		count_latency(figures, TOTAL, io.total_ns);
	}
#if EVENTS
	io.flags = place->flags | flags_of(opf) | (failed ? FLAG_ERROR : 0);
	if (place->bio)
		submission = place_of_bio(place->bio);
	if (op != OP_FLUSH)
		emit(figures, &io, now, submission);
#endif
	if (io.bytes >= LOAD32(request, OFF_request___data_len))
		place->request = 0;
	return 0;
}

/* Of a device without requests each bio is an I/O, and is counted when it is submitted: at its end it may be used up. */
int pydbt_whole_bio_queue(struct bpf_raw_tracepoint_args *ctx)
{
	u64 bio = ctx->args[ARG_block_bio_queue_bio], sector;
	u32 opf = LOAD32(bio, OFF_bio_bi_opf), op = opf & OP_MASK, bytes, flags, class;
	struct pydbt_io_figures *figures;

	if (!our_bio(bio) || is_passthrough(op))
		return 0;
	bytes = LOAD32(bio, OFF_bio_bi_size);
	sector = LOAD64(bio, OFF_bio_bi_sector);
	if (bytes ? !in_device(sector) : !(opf >> BIT_PREFLUSH & 1))
		return 0;
	class = bytes ? class_of(op) : CLASS_FLUSH;
	figures = pydbt_figures.lookup(&class);
	if (!figures)
		return 0;
	count(figures, sector, bytes);
	flags = sequential(figures, class, sector, bytes);
	if (!(figures->begun++ & every_mask()))
		note_bio(bio, op, sector, bytes, flags);
	return 0;
}

int pydbt_whole_bio_complete(struct bpf_raw_tracepoint_args *ctx)
{
	u64 bio = ctx->args[ARG_block_bio_complete_bio], now;
	u32 opf = LOAD32(bio, OFF_bio_bi_opf), op = opf & OP_MASK, class;
	struct ended io = {.queue_ns = UNKNOWN, .device_ns = UNKNOWN};
	bool failed = LOAD("u8", bio, OFF_bio_bi_status);
	struct pydbt_io_figures *figures;
	struct bio_place *place;

	if (!our_bio(bio))
		return 0;
	place = place_of_bio(name_of_bio(bio));
	if (!place)	/* no time was taken of it, or it is a part of one that was seen */
		return 0;
	class = place->bytes ? class_of(op) : CLASS_FLUSH;
	figures = pydbt_figures.lookup(&class);
	if (!figures)
		return 0;
	now = bpf_ktime_get_ns();
	if (failed)
		figures->errors++;
	io.total_ns = now - place->time_ns;
	count_latency(figures, TOTAL, io.total_ns);
#if EVENTS
	io.sector = place->sector;
	io.bytes = place->bytes;
	io.class = class;
	io.flags = flags_of(opf) | (place->flags & FLAG_SEQUENTIAL) | (failed ? FLAG_ERROR : 0);
	emit(figures, &io, now, place);
#endif
	place->bio = 0;
	return 0;
}
