"""The alert rules, by promtool: each fires where it must, and nothing that is normal in a resynchronization fires one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pydbt.core.seen.metric_samples import ALL_METRICS, BUILD_INFO

PROJECT = Path(__file__).resolve().parent.parent.parent
RULES = PROJECT / "packaging/monitoring/alerts.yml"
CASES = Path(__file__).with_name("alerts.test.yml")
ALERTS = re.findall(r"- alert: (\w+)\n", RULES.read_text())

pytestmark = pytest.mark.prometheus


def promtool(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, timeout=60)


def outcome_of(rules: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "alerts.yml").write_text(rules)
    shutil.copy(CASES, folder)
    return promtool("test", "rules", folder / CASES.name)


@pytest.mark.smoke
def test_the_rules_are_valid() -> None:
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0 and f"{len(ALERTS)} rules found" in done.stdout + done.stderr, done.stderr


@pytest.mark.smoke
def test_alerts_that_must_fire_fire_and_no_others(tmp_path: Path) -> None:
    done = outcome_of(RULES.read_text(), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_seen_to_fire(alert: str, tmp_path: Path) -> None:
    """Without its rule the cases fail: so none of them passes because nothing is looked at."""
    head, *rules = re.split(r"(?=\n      - alert: )", RULES.read_text())
    kept = [rule for rule in rules if f"- alert: {alert}\n" not in rule]
    assert len(kept) == len(rules) - 1
    assert outcome_of(head + "".join(kept), tmp_path).returncode != 0


@pytest.mark.parametrize("condition", re.findall(r"(?:unless|and) on \(.+", RULES.read_text()))
def test_each_condition_of_an_alert_is_needed(condition: str, tmp_path: Path) -> None:
    """Without it something would fire that is normal, or that another alert tells."""
    assert outcome_of(RULES.read_text().replace(condition, ""), tmp_path).returncode != 0


def test_the_rules_ask_for_metrics_that_exist() -> None:
    known = {BUILD_INFO, *(metric.name for metric in ALL_METRICS)}
    assert set(re.findall(r"\bpydbt_\w+", re.sub(r"#.*", "", RULES.read_text()))) <= known


def test_the_document_names_each_alert() -> None:
    named = re.findall(r"\bPydbt\w+", (PROJECT / "docs/operating/monitoring.md").read_text())
    assert set(named) == set(ALERTS)
