"""Disks: the facts about a block device, the file systems on it, its snapshots, and aligned input and output."""
