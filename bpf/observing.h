/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the observing programs share: reading the kernel's structures, and values that the loader puts in.
 *
 * Observing programs are no part of capture (capture.bpf.c): they have maps of their own, are never pinned, and end with
 * the process that loaded them. Offsets come with -D from pydbt/kernel/tracing/, which takes them from the kernel's BTF.
 */
#ifndef PYDBT_OBSERVING_H
#define PYDBT_OBSERVING_H

#define TEXT_OF(number) #number
#define NUMBER_LOADED(number) "%0 = " TEXT_OF(number) " ll"

/* A VALUE_* is a number that stands for a value; pydbt/kernel/loaded.py puts the value in its place, and to the
 * verifier it is a constant. */
#define LOADED_VALUE(number) ({ \
	u64 value; \
	asm(NUMBER_LOADED(number) : "=r"(value)); \
	value; })

/* A field of a struct whose address the verifier knows by its type: one instruction, and 0 from a bad address. */
#define LOAD(type, base, offset) ({ \
	u64 loaded; \
	asm volatile("%0 = *(" type " *)(%1 + %2)" : "=r"(loaded) : "r"(base), "i"(offset)); \
	loaded; })
#define LOAD64(base, offset) LOAD("u64", base, offset)
#define LOAD32(base, offset) ((u32)LOAD("u32", base, offset))

/* The address of a kernel's object as a number: the verifier lets nobody calculate with a pointer, but one may be
 * subtracted from another. `base`: an object that is the same each time. */
#define DISTANCE(pointer, base) ({ \
	u64 distance = pointer; \
	asm volatile("%0 -= %1" : "+r"(distance) : "r"(base)); \
	distance; })

/* BPF_F_MMAPABLE, v5.5: such an array begins with a page, and so values of 32 or 64 bytes never lie across two lines
 * of the cache. Nobody maps it. */
#define MMAPABLE 1024

/* A field of a struct that was copied to the stack. */
#define COPIED64(copy, offset) (*(u64 *)((char *)(copy) + (offset)))
#define COPIED32(copy, offset) (*(u32 *)((char *)(copy) + (offset)))
#define COPIED16(copy, offset) (*(u16 *)((char *)(copy) + (offset)))

static __always_inline int read_kernel(void *to, u32 size, u64 from)
{
	return bpf_probe_read_kernel(to, size, (void *)from);
}

/* The number of the highest bit that is set; 0 for 0. Without a branch: the verifier would follow each. */
static __always_inline u32 log2_of(u64 value)
{
	value |= value >> 1;
	value |= value >> 2;
	value |= value >> 4;
	value |= value >> 8;
	value |= value >> 16;
	value |= value >> 32;
	value >>= 1;	/* as many ones as the number wanted */
	value -= value >> 1 & 0x5555555555555555;
	value = (value & 0x3333333333333333) + (value >> 2 & 0x3333333333333333);
	value = value + (value >> 4) & 0x0f0f0f0f0f0f0f0f;
	return value * 0x0101010101010101 >> 56;
}

#endif
