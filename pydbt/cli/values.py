"""The values that options take: sizes, rates, times and addresses, as people write them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from pydbt.core.configured.on_unreachable import OnUnreachable
from pydbt.core.errors import UsageError
from pydbt.core.units import NUMBER_MAX
from pydbt.network.address import parse_address

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)")
_LATENCY = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(us|ms|s)")
_NANOSECONDS_OF = {"us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_SECONDS_OF = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
LONGEST_S = 1e9
"""Longer than any use of a time. Who waits at a socket waits in parts of it (``LONGEST_SOCKET_WAIT_S``)."""
_LONGEST_SIZE = 100
_UNITS = {"": 1, "B": 1, "S": 512}
for _power, _letter in enumerate("KMGTP", start=1):
    _UNITS |= {_letter: 1024**_power, f"{_letter}I": 1024**_power, f"{_letter}IB": 1024**_power}
    _UNITS[f"{_letter}B"] = 1000**_power


def parse_size(text: str) -> int:
    """Bytes of ``64M``, ``64MiB`` (1024s), ``64MB`` (1000s), ``2048s`` (sectors) or a plain number. ValueError."""
    match = _SIZE.fullmatch(text.strip()) if len(text) <= _LONGEST_SIZE else None
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is no size: write bytes, or a number with K, M, G or T, as in 64M")
    whole, _, fraction = match[1].partition(".")
    size = int(whole) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
    if size >= NUMBER_MAX:
        raise ValueError(f"{text!r} is too large: a size must be less than 16 EiB")
    return size


class _Value(click.ParamType):  # type: ignore[type-arg]  # click 8.1 takes no parameter
    """A kind of value."""


class Size(_Value):
    """A size: a number of bytes, or a number with `K`, `M`, `G`, `T` or `P` (`KiB` and so on; 1024), `KB` and so on (1000), or
    `s` (sectors of 512 bytes), as in `64M`.
    """

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Space(_Value):
    """A size, or the path of a device."""

    name = "size or device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return value if isinstance(value, str) and value.startswith("/") else SIZE.convert(value, param, ctx)


class Rate(Size):
    """A rate: a size per second with a unit, as in `20M`; `/s` may follow."""

    # A number alone is refused: it was meant as mebibytes.

    name = "bytes/s"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = value.removesuffix("/s").strip() if isinstance(value, str) else value
        if isinstance(text, str) and _SIZE.fullmatch(text) and text[-1].isdigit() and text.strip("0."):
            self.fail(
                f"{value!r} has no unit: write {text}M for mebibytes per second, or {text}B for bytes", param, ctx
            )
        return super().convert(text, param, ctx)


class Duration(_Value):
    """A time: a number of seconds, or a number with `s`, `m`, `h` or `d`, as in `12h`."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = _DURATION.fullmatch(value.strip())
        if match is None or not value.isascii():
            self.fail(f"{value!r} is no time: write seconds, or a number with s, m, h or d, as in 12h", param, ctx)
        seconds = float(match[1]) * _SECONDS_OF[match[2]]
        if seconds > LONGEST_S:
            self.fail(f"{value!r} is too long: no time may be longer than {LONGEST_S / 86_400:.0f} days", param, ctx)
        return seconds


class Latency(_Value):
    """A short time with its unit: `250us`, `5ms` or `1s`."""

    name = "latency"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _LATENCY.fullmatch(str(value).strip())
        if match is None or not str(value).isascii():
            self.fail(f"{value!r} is no latency: write a number with us, ms or s, as in 5ms", param, ctx)
        return int(float(match[1]) * _NANOSECONDS_OF[match[2]])


class Address(_Value):
    """An address: `HOST:PORT`, `[V6ADDRESS]:PORT`, or `unix:PATH` for a socket on this machine."""

    name = "addr:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        try:
            return parse_address(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


class OnSilence(_Value):
    """What is done when nobody answers: `wait TIME`, `wait TIME, then refuse`, `mount` or `refuse`."""

    name = "wait time|mount|refuse"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> OnUnreachable:
        if isinstance(value, OnUnreachable):
            return value
        try:
            return OnUnreachable.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


SIZE, SPACE, RATE, DURATION, LATENCY, ADDRESS = Size(), Space(), Rate(), Duration(), Latency(), Address()
ON_SILENCE = OnSilence()
# The checks of each command find out whether a path can be read: they know what it is for.
PATH = click.Path(path_type=Path, readable=False)
