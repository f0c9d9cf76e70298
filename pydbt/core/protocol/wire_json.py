"""The frames whose bodies are JSON: handshake, standing and farewell, where names matter more than bytes."""

from __future__ import annotations

import json
from types import UnionType

from pydbt.core.protocol import frames as f
from pydbt.core.protocol.divergence import Divergence
from pydbt.core.protocol.frames import Frame
from pydbt.core.protocol.generations import Generations
from pydbt.core.protocol.role import Role
from pydbt.core.protocol.standing import Standing
from pydbt.core.protocol.transaction import Transaction
from pydbt.core.units import Buffer

_KEYS: dict[type, dict[str, type | UnionType]] = {
    f.Hello: {"protocol": int, "volume": str, "size_bytes": int, "block_bytes": int, "sector_bytes": int,
              "epoch": str, "software": str, "features": list, "generations": dict},
    f.Welcome: {"volume": str | None, "state": str, "epoch": str, "sequence": int, "staged": bool,
                "size_bytes": int, "fresh": bool, "replica": str, "software": str, "features": list,
                "generations": dict},
    f.Refuse: {"code": str, "message": str},
    f.Bye: {"reason": str},
    f.Generation: {"generations": dict},
    f.Handover: {"final": bool, "listen": str, "epoch": str, "sequence": int},
    f.Takeover: {"final": bool, "refusal": str},
    Standing: {"host": str, "source": str, "moment": str, "sequence": int, "followed": bool,
                 "behind_bytes": int | None},
    Role: {"role": str, "since": str, "replica": str, "formerly": list, "generations": dict, "epoch": str,
           "sequence": int},
    Transaction: {"file_system": str, "name": str, "committed": str, "age_ms": int, "sequence": int},
}  # fmt: skip
# Left out where they are None: what this says to older programs must have exactly their keys.
_OPTIONAL: dict[type, dict[str, type | UnionType]] = {
    f.Welcome: {"progress": int, "digest_key": str, "formerly": list, "marks": list},
    f.Refuse: {"side": dict},
}


JsonFrame = (
    f.Hello | f.Welcome | f.Refuse | f.Bye | f.Generation | Standing | f.Handover | f.Takeover | Role | Transaction
)


def json_body(frame: JsonFrame) -> bytes:
    """The body; an epoch, or the number of a mark, becomes 16 hexadecimal digits."""
    values = {key: getattr(frame, key) for key in _KEYS[type(frame)]}
    values |= {key: value for key in _OPTIONAL.get(type(frame), ()) if (value := getattr(frame, key)) is not None}
    if "epoch" in values:
        values["epoch"] = f"{values['epoch']:016x}"
    if "marks" in values:
        values["marks"] = [f"{number:016x}" for number in values["marks"]]
    if "generations" in values:
        values["generations"] = values["generations"].to_values()
    if "side" in values:
        values["side"] = values["side"].to_values()
    return json.dumps(values, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def decode_json(kind: type[Frame], body: Buffer) -> Frame:
    """The frame of a JSON body with exactly its keys. Raises ValueError, or RecursionError for deep nesting."""
    values = json.loads(bytes(body), object_pairs_hook=_unique)
    expected, optional = _KEYS[kind], _OPTIONAL.get(kind, {})
    if type(values) is not dict or values.keys() - optional.keys() != expected.keys():
        raise ValueError(f"its keys are not {', '.join(expected)}")
    for key, wanted in (expected | {key: optional[key] for key in optional.keys() & values.keys()}).items():
        if not isinstance(values[key], wanted) or (wanted in (int, int | None) and isinstance(values[key], bool)):
            raise ValueError(f"{key} has the wrong type")
    if "epoch" in values:
        values["epoch"] = _u64(values["epoch"])
    if "generations" in values:
        values["generations"] = Generations.from_values(values["generations"])
    if "side" in values:
        values["side"] = Divergence.from_values(values["side"])
    if "marks" in values:
        values["marks"] = [_u64(number) for number in values["marks"]]
    values |= {key: tuple(values[key]) for key in ("features", "formerly", "marks") if key in values}
    return kind(**values)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key appears twice")
    return values


def _u64(text: object) -> int:
    if type(text) is not str or len(text) != 16 or set(text) - set("0123456789abcdef"):
        raise ValueError("an epoch, or the number of a mark, has 16 hexadecimal digits")
    return int(text, 16)
