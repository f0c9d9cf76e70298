"""pydbt: replicate a live block device, and after a failure copy only what differs.

The rooms, and the one rule between them:

* ``core`` decides and touches nothing: log, map, lists, protocol, both brains.
* ``kernel`` touches eBPF, ``device`` disks, ``store`` state files, ``network`` sockets.
* ``controller`` is where they meet: one loop, one ``match`` over a brain's effects.
* ``cli`` words commands and errors for people.

``core`` imports no other room; only ``controller`` and ``cli`` import more than one.
"""
