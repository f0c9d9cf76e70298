"""eBPF: compile, attach, pin, and read what the programs captured."""
