"""A disk that is away, of a volume or replica that was there before, is waited for; a wrong word is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pydbt.controller.options import PrimaryOptions, SecondaryOptions
from pydbt.controller.primary.service import run_primary
from pydbt.controller.secondary.service import SecondaryService
from pydbt.core.errors import DeviceError, UsageError
from pydbt.store.replica_state import REPLICA_FILE_NAME
from pydbt.store.volume_state import VOLUME_FILE_NAME


def _primary(state_dir: Path) -> object:
    return run_primary(PrimaryOptions(Path("/dev/pydbt-none"), (("127.0.0.1", 9),), state_dir, insecure=True))


def _of_a_device(state_dir: Path) -> object:
    return SecondaryService(SecondaryOptions(Path("/dev/pydbt-none"), "127.0.0.1", 0, state_dir, insecure=True))


def _of_an_image(state_dir: Path) -> object:
    return SecondaryService(SecondaryOptions(state_dir / "away/replica.img", "127.0.0.1", 0, state_dir, insecure=True))


@pytest.mark.parametrize(
    ("start", "record"),
    [(_primary, VOLUME_FILE_NAME), (_of_a_device, REPLICA_FILE_NAME), (_of_an_image, REPLICA_FILE_NAME)],
)
def test_a_missing_disk_with_a_record_is_waited_for_and_one_without_a_record_is_wrong_usage(
    tmp_path: Path, start: Callable[[Path], object], record: str
) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        start(tmp_path)
    (tmp_path / record).write_text("{}")
    with pytest.raises(DeviceError, match=r"does not exist.*it was there before, and is waited for"):
        start(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [record], "nothing else was made"
