"""A real Prometheus of Debian's package, on a port of the test's own, that scrapes one dashboard every second."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.patience import until
from tests.lab.programs import end_with_parent, free_port

RULES = Path(__file__).resolve().parent.parent.parent / "packaging/monitoring/alerts.yml"
CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: pydbt
    authorization: {{credentials_file: "{token}"}}
    static_configs: [{{targets: ["{target}"]}}]
"""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs."""

    port: int

    def api(self, path: str, **parameters: str) -> Any:
        words = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}{words}", timeout=20) as answer:
            told = json.loads(answer.read())
        assert told["status"] == "success", told
        return told["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and values now; NaN counts as no value."""
        data = self.api("api/v1/query", query=expression)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        values = [(one["metric"], float(one["value"][1])) for one in data["result"]]
        return [(labels, value) for labels, value in values if not math.isnan(value)]

    def value(self, expression: str) -> float | None:
        """The only value; None where there is none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    def alerts(self) -> dict[str, str]:
        """``alertname volume`` -> ``pending`` or ``firing``."""
        return {
            f"{one['labels']['alertname']} {one['labels'].get('volume', '')}".strip(): one["state"]
            for one in self.api("api/v1/alerts")["alerts"]
        }

    def rules(self) -> dict[str, str]:
        """Each alert and its expression, as Prometheus has read it; none has failed."""
        rules = [rule for group in self.api("api/v1/rules")["groups"] for rule in group["rules"]]
        assert all(rule["health"] in ("ok", "unknown") for rule in rules), rules
        return {rule["name"]: rule["query"] for rule in rules}


@contextlib.contextmanager
def prometheus(folder: Path, target: str, token: Path) -> Iterator[Prometheus]:
    """It runs as long as this lasts, and keeps its data in the folder."""
    folder.mkdir()
    settings = folder / "prometheus.yml"
    settings.write_text(CONFIGURATION.format(rules=RULES, token=token, target=target))
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus", f"--config.file={settings}", f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=1d",
            ],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=end_with_parent,
        )  # fmt: skip
    made = Prometheus(port)

    def ready() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with contextlib.suppress(OSError):
            return made.value('up{job="pydbt"}') == 1.0
        return False

    try:
        until(ready, "Prometheus has scraped the dashboard")
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
