"""The parts of a secondary's brain, for those that look at all of them."""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.primary.file_system_transactions import FileSystemTransactions
from pydbt.core.primary.landing import Landing
from pydbt.core.primary.link import Link
from pydbt.core.primary.quiet_bitmap import QuietBitmap
from pydbt.core.primary.settler import Settler
from pydbt.core.primary.snapshot_comparison import SnapshotComparison
from pydbt.core.primary.state import State
from pydbt.core.primary.taints import Taints
from pydbt.core.primary.verifier import Verifier


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a brain, chosen once, when it is made. A function that gets all of them only reads them."""

    state: State
    link: Link
    quiet: QuietBitmap
    settler: Settler
    verifier: Verifier | SnapshotComparison
    landing: Landing
    taints: Taints
    transactions: FileSystemTransactions
