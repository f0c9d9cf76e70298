/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What crosses from the kernel to the controller: one definition.
 *
 * pydbt/kernel/record.py holds the same numbers as numpy types; tests/kernel
 * parses this file and compares. Everything is little endian on the machines
 * that are supported, and nothing here leaves the machine.
 */
#ifndef PYDBT_RECORD_H
#define PYDBT_RECORD_H

/* One request submitted, or one completion: an element of the header ring. */
struct pydbt_record {
	u64 position;	/* its place in the order, from 1; written last, see below */
	u64 sector;	/* first sector, from the start of the volume, clipped to it */
	u64 data;	/* kernel address of the LAST data slot, 0 without one */
	u64 cookie;	/* the bio, 0 for completions of requests */
	u64 time_ns;	/* CLOCK_MONOTONIC, at most a jiffy old */
	u32 sectors;	/* 0 for a flush without data */
	u32 pieces;	/* data slots in the chain that ends at `data` */
	u8 kind;	/* PYDBT_KIND_* */
	u8 op;		/* the running kernel's own REQ_OP_* number */
	u16 flags;	/* PYDBT_FLAG_* */
	u32 cpu;
	u64 ordinal;	/* of this kind of program on this CPU; a gap is a lost record */
};

#define PYDBT_RECORD_BYTES 64

#define PYDBT_KIND_SUBMIT 1
#define PYDBT_KIND_COMPLETE 2	/* 3 and up: reserved for file system transactions */

#define PYDBT_FLAG_FUA 1
#define PYDBT_FLAG_PREFLUSH 2
#define PYDBT_FLAG_NO_PAYLOAD 4		/* payload was wanted and is not, or not all, here */
#define PYDBT_FLAG_ERROR 8
#define PYDBT_FLAG_UNSTABLE 16		/* may have changed between the copy and the disk */
#define PYDBT_FLAG_BIO_BASED 32		/* completions match by cookie, not by range */
#define PYDBT_FLAG_NO_DATA_OP 64	/* discard, secure erase, write zeroes: see op */
#define PYDBT_FLAG_META 128
#define PYDBT_FLAG_CLIPPED 256		/* the request reached beyond the volume */

/* A slot of the data ring: this prefix, then `size` bytes of room of which
 * `length` are payload. */
struct pydbt_slot {
	u64 previous;	/* kernel address of the slot before it in the same request, or 0 */
	u32 length;
	u32 size;
};

#define PYDBT_SLOT_PREFIX_BYTES 16
#define PYDBT_SLOT_SMALL_BYTES 4096	/* a page: nearly every piece */
#define PYDBT_SLOT_MEDIUM_BYTES 16384
#define PYDBT_SLOT_LARGE_BYTES 65536	/* for vectors of many pages: large folios */
#define PYDBT_SLOT_HUGE_BYTES 262144	/* only where it is filled: XFS makes bios of 64 MiB and more */

/* The two bitmaps: one bit per block, and one bit for a whole aligned group. */
#define PYDBT_GROUP_BLOCKS 32768
#define PYDBT_GROUP_WORDS 512

/*
 * What the controller tells the programs, and may change while they run; and
 * the header ring's positions. One page; what different sides write lies on
 * different cache lines.
 *
 * The header ring is an array with an ever growing position: an atomic add
 * takes a place in the order (a third of the price of the kernel's own ring
 * buffer, whose lock and positions travel between CPUs), the record is filled
 * in and its `position` written last. Element i holds positions i+1, i+1+size...
 * A place that lies a whole ring or more ahead of `consumer` is not filled in:
 * that is a lost record, counted in `overflows`. The controller takes a place
 * whose record is missing for lost, instead of not finished yet, only after a
 * grace period.
 */
struct pydbt_config {
	u32 active;	/* which bitmap takes the bits: 0 or 1 */
	u32 payload;	/* copy data (only in a build with PYDBT_PAYLOAD) */
	u32 records;	/* emit records at all */
	u32 watch;	/* sum the memory of direct writes (watched.bpf.h) */
	u64 page_offset_base;	/* address of physical page 0 in the direct map */
	u64 vmemmap_base;	/* address of its struct page */
	u64 buffer_end_io[5];	/* functions that end a bio of a buffer, 0 if unknown: see payload.bpf.h */
	u64 apart;	/* how far pydbt_submit() has others beside it: see preempted.bpf.h */
	u64 unused_1[6];
	u64 producer;	/* places taken: written by programs */
	u64 unused_2[15];
	u64 overflows;	/* places taken in vain: written by programs */
	u64 unused_3[15];
	u64 consumer;	/* places read: written by the controller */
	u64 skipped;	/* of the overflows, those it has passed */
	u64 waiting;	/* it sleeps until the bell rings: set by the controller, cleared by the program that rings */
};

/* One per program and CPU: a program cannot be entered twice on a CPU, so
 * nothing here needs an atomic operation. */
struct pydbt_counters {
	u64 ordinal;		/* events for which a record was wanted */
	u64 sectors;		/* seen in the volume, whether a record was made or not */
	u64 discard_sectors;	/* those of them that were REQ_OP_DISCARD */
	u64 lost;		/* records for which the header ring had no room; of the witness, writes without one */
	u64 no_payload;
	u64 unstable;
	u64 unknown_ops;	/* writing operations whose blocks are not known */
	u64 passthrough;
};

#define PYDBT_PROGRAM_SUBMIT 0
#define PYDBT_PROGRAM_REQUEST_COMPLETE 1
#define PYDBT_PROGRAM_BIO_COMPLETE 2
#define PYDBT_PROGRAM_MARK 3	/* this and the next two only where programs can be preempted */
#define PYDBT_PROGRAM_UNDERSTUDY 4
#define PYDBT_PROGRAM_WITNESS 5
#define PYDBT_PROGRAMS 6

#endif
