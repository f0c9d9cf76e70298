"""Whether virtual machines run here: by their direct writes memory goes to disks that its owner changes meanwhile."""

from __future__ import annotations

from pathlib import Path

from pydbt.posix.files import read_entry

_MODULES = Path("/sys/module")
_KVM = Path("/dev/kvm")
_XEN = Path("/proc/xen/capabilities")


def guests_may_run() -> bool:
    """Whether a guest of KVM or Xen runs; also where KVM does not tell, because it is no module but a part of the kernel.

    Each guest of KVM holds the module of its processor's kind.
    """
    if "control_d" in (read_entry(_XEN) or ""):
        return True
    if not _KVM.exists():
        return False
    counts = [read_entry(module / "refcnt") for module in _MODULES.glob("kvm_*")]
    return not counts or any(count != "0" for count in counts)
