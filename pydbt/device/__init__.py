"""Disks: what a block device is, what lies on it, and aligned input and output."""
