"""Examples for the man pages: lines to type, each with what it does. A test holds their options to the program."""

from __future__ import annotations

Example = tuple[str, str]

OF_THE_PROGRAM: tuple[Example, ...] = (
    ("Check the configuration of this machine:", "sudo controller configcheck"),
    ("Replicate every volume in /etc/pydbt/volumes:", "sudo controller run"),
    ("A line for every volume and replica, the worst first:", "sudo controller status"),
)

EXAMPLES: dict[str, tuple[Example, ...]] = {
    "run": (
        ("Replicate every volume in /etc/pydbt/volumes:", "sudo controller run"),
        ("Replicate the volume that /etc/pydbt/volumes/data.toml configures:", "sudo controller run data"),
        (
            "Replicate /dev/vda3 without a file:",
            "sudo controller run /dev/vda3 --secondary 10.0.0.2:7790 --state /var/lib/pydbt/vda3 "
            "--identity /etc/pydbt/alpha.identity",
        ),
    ),
    "secondary": (
        ("Keep every replica in /etc/pydbt/volumes:", "sudo controller secondary"),
        (
            "Keep a replica on /dev/vdb without a file:",
            "sudo controller secondary /dev/vdb --listen 10.0.0.2:7790 --state /var/lib/pydbt/vdb "
            "--identity /etc/pydbt/beta.identity",
        ),
    ),
    "secondaries": (("Add a second replica of a volume:", "sudo controller secondaries data --add 10.0.0.3:7790"),),
    "status": (
        ("A line for every volume and replica, the worst first:", "sudo controller status"),
        ("The state of one volume for a program:", "sudo controller status data --json"),
    ),
    "events": (
        ("Every change on this machine, until Ctrl-C:", "sudo controller events"),
        ("The present state of everything, for a program:", "sudo controller events --now --json"),
    ),
    "check": (("One line and an exit code for monitoring:", "sudo controller check data -w 60s -c 10m"),),
    "wait": (
        ("Return when every write so far is durable on the secondary:", "sudo controller wait data --timeout 60"),
    ),
    "mark": (
        (
            "Mark the moment before a risky step, held by every secondary:",
            "sudo controller mark data 'before migration 14'",
        ),
    ),
    "verify": (
        ("Compare both sides, and read at most 50 MiB per second:", "sudo controller verify data --rate-limit 50M/s"),
    ),
    "switchover": (("Make the secondary of a volume its primary:", "sudo controller switchover data"),),
    "promote": (("Use the replica after the primary was lost:", "sudo controller promote data"),),
    "demote": (("Make the volume of an old primary a replica:", "sudo controller demote data"),),
    "invalidate": (("Give up the changes of the side that is to lose them:", "sudo controller invalidate data"),),
    "pki": (
        ("Make an authority, and an identity for the machine alpha:", "controller pki init pki"),
        ("", "controller pki issue pki alpha"),
    ),
    "pause": (("Halt replication; writes stay tracked:", "sudo controller pause data"),),
    "resume": (("Continue replication:", "sudo controller resume data"),),
    "up": (("Start every configured volume and replica that has ended:", "sudo controller up --all"),),
    "down": (
        ("Stop the controller of one volume, and tracking:", "sudo controller down data"),
        ("Stop everything on this machine:", "sudo controller down --all"),
    ),
    "arm": (("Track the writes to a volume after a boot, before it is mounted:", "sudo controller arm data"),),
    "disarm": (("Write the closing record of a volume that was unmounted:", "sudo controller disarm data"),),
    "gate": (("Ask whether a volume may be mounted after a failover:", "sudo controller gate data"),),
    "layer": (
        (
            "A layer that records which regions are written:",
            "sudo controller layer create /dev/vdb data --era /dev/vdc1",
        ),
    ),
    "cluster": (
        (
            "Let the data of this node count, before the volume becomes a resource:",
            "sudo controller cluster choose data",
        ),
        ("Make a node that was fenced a replica:", "sudo controller cluster rejoin data"),
    ),
    "protect": (("Keep LVM, md and others off the targets of all replicas:", "sudo controller protect"),),
    "hold": (("Hold the target of one replica, as its unit does:", "sudo controller hold data"),),
    "transactions": (
        ("The last transactions of the file system on a device:", "sudo controller transactions /dev/vdb"),
        ("Those on the image of a replica, for a program:", "controller transactions /srv/replica.img --json"),
    ),
    "dashboard": (
        ("Open the printed link in a browser of this machine:", "sudo controller dashboard"),
        (
            "Serve other machines too, by TLS:",
            "sudo controller dashboard --listen 0.0.0.0:7780 --identity /etc/pydbt/alpha.identity",
        ),
        (
            "Serve a proxy that runs as www-data:",
            "sudo controller dashboard --listen unix:/run/pydbt/dashboard.sock --allow www-data",
        ),
    ),
    "top": (
        ("All volumes of this machine, live:", "sudo controller top"),
        ("Over a slow line:", "sudo controller top --interval 10s"),
    ),
    "trace": (
        ("Who writes to a disk, live:", "sudo controller trace /dev/vdb --only writes"),
        ("I/Os that take longer than 10 ms, as JSON:", "sudo controller trace /dev/vdb --min-latency 10ms --json"),
        ("Record a minute, and look at it later:", "sudo controller trace /dev/vdb --duration 60 --record /tmp/vdb.io"),
        (
            "Play it again with fio on a scratch disk:",
            "controller trace --replay /tmp/vdb.io --summary --fio /tmp/vdb.log",
        ),
    ),
    "compile": (
        (
            "Compile for a kernel that was installed, before it is booted:",
            "sudo controller compile --kernel 6.1.0-44-amd64",
        ),
        (
            "For an image of a machine that has no compiler:",
            "sudo controller compile --image /mnt/boot/vmlinuz-6.1.0-44-amd64",
        ),
    ),
    "configcheck": (
        ("Check every file:", "sudo controller configcheck"),
        ("Check one volume, with its device and its port:", "sudo controller configcheck data --devices"),
    ),
    "help": (("The text that `controller run --help` prints:", "controller help run"),),
}
