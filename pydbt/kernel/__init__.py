"""eBPF: compile, attach and pin the capture programs, and read their records, data and bitmaps."""
