"""Transactions of the file system on the volume, read from its own log: jbd2 (ext4) and XFS. Source: US 7,039,661, ¶55-56."""
