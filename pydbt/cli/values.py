"""The values that options take: sizes, rates, times and addresses, as people write them."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import click

from pydbt.core.errors import UsageError
from pydbt.core.units import GIB, KIB, MIB
from pydbt.network.address import parse_address

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
LONGEST_S = 1e9
"""Longer than any use of a time; every operating system accepts it as a timeout."""
_UNITS = {"": 1, "B": 1, "S": 512}
for _power, _letter in enumerate("KMGTP", start=1):
    _UNITS |= {_letter: 1024**_power, f"{_letter}I": 1024**_power, f"{_letter}IB": 1024**_power}
    _UNITS[f"{_letter}B"] = 1000**_power


def parse_size(text: str) -> int:
    """Bytes of ``64M``, ``64MiB`` (1024s), ``64MB`` (1000s), ``2048s`` (sectors) or a plain number. ValueError."""
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is no size: write bytes, or a number with K, M, G or T, as in 64M")
    whole, _, fraction = match[1].partition(".")
    return int(whole) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)


def format_bytes(size_bytes: float) -> str:
    """A size for people: ``512 B``, ``1.5 KiB``, ``20 GiB``."""
    if size_bytes < KIB:
        return f"{size_bytes:.0f} B"
    scale = ((KIB, "KiB"), (MIB, "MiB"), (GIB, "GiB"), (1024 * GIB, "TiB"))
    unit, name = next((step for step in scale if size_bytes < step[0] * 1000), scale[-1])
    value = size_bytes / unit
    return f"{value:.1f} {name}" if value < 100 else f"{value:.0f} {name}"


def format_seconds(seconds: float) -> str:
    """A duration for people: ``0.3 s``, ``45 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 172_800:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


class Seconds(click.FloatRange):
    """An option's time in seconds, a plain number; neither infinite nor "nan"."""

    def __init__(self) -> None:
        super().__init__(min=0, max=LONGEST_S)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


class _Value(click.ParamType):  # type: ignore[type-arg]  # click 8.1 takes no parameter
    """A kind of value."""


class Size(_Value):
    """An option's size in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Space(_Value):
    """An option's size in bytes, or the path of a device."""

    name = "size or device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return value if isinstance(value, str) and value.startswith("/") else SIZE.convert(value, param, ctx)


class Rate(Size):
    """An option's rate in bytes per second; ``/s`` may be written."""

    name = "bytes/s"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return super().convert(value.removesuffix("/s") if isinstance(value, str) else value, param, ctx)


class Duration(_Value):
    """An option's time in seconds: ``90``, ``30m``, ``12h``, ``7d``."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            self.fail(f"{value!r} is no time: write seconds, or a number with s, m, h or d, as in 12h", param, ctx)
        seconds = float(match[1]) * _SECONDS[match[2]]
        if seconds > LONGEST_S:
            self.fail(f"{value!r} is too long: no time may be longer than {LONGEST_S / 86_400:.0f} days", param, ctx)
        return seconds


class Address(_Value):
    """An option's ``HOST:PORT``, as (host, port)."""

    name = "addr:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        try:
            return parse_address(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


SIZE, SPACE, RATE, SECONDS, DURATION, ADDRESS = Size(), Space(), Rate(), Seconds(), Duration(), Address()
# The checks of each command find out whether a path can be read: they know what it is for.
PATH = click.Path(path_type=Path, readable=False)
