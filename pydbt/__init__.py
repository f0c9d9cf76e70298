"""pydbt: replicate a live block device, and after a failure copy only what differs.

The rooms, and the one rule between them:

* ``core`` decides and touches nothing: log, map, lists, protocol, both brains.
* ``kernel`` touches eBPF, ``device`` disks, ``store`` state files, ``network`` sockets.
* ``posix`` is their common ground: whole writes, durable names, locks, calls of the C library.
* ``controller`` is where these rooms meet: one loop, and the effects of a brain carried out.
* ``dashboard`` serves pages, figures and events of all volumes of a machine, and can change nothing.
* ``cli`` has the commands, and the sentences for people.

``core`` imports no other room, and ``posix`` only ``core``. Each other room imports these two. Only ``controller``,
``dashboard`` and ``cli`` import more, and none of them one that comes after it here.
"""
