"""The queries of the Grafana dashboard, as Grafana would send them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOARD = Path(__file__).resolve().parent.parent.parent / "packaging/monitoring/grafana.json"
# What Grafana puts in the place of its variables with "All" chosen and a scrape every second.
VARIABLES = {"$machine": ".*", "$volume": ".*", "$__rate_interval": "4s", "$__range": "1m", "$__interval": "1s"}


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel: the expression as it is written, and as it is sent."""

    panel: str
    written: str
    sent: str


def board() -> dict[str, Any]:
    return dict(json.loads(BOARD.read_text()))


def queries() -> list[Query]:
    """Of all panels; and those that fill the variables."""
    found = [
        Query(panel["title"], target["expr"], with_variables(target["expr"]))
        for panel in board()["panels"]
        for target in panel.get("targets", ())
    ]
    for variable in board()["templating"]["list"]:
        if variable["type"] == "query":
            (series,) = re.findall(r"^label_values\((.*), \w+\)$", variable["definition"])
            found.append(Query(f"variable {variable['name']}", series, with_variables(series)))
    return found


def with_variables(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression
