"""The alerts for Prometheus: the rules are right, and each fires when it should and not before."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

RULES = Path(__file__).parents[2] / "packaging/prometheus"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool of prometheus is not installed")
def test_promtool_accepts_the_rules_and_each_alert_fires() -> None:
    for words in (("check", "rules", "instep.rules.yaml"), ("test", "rules", "instep.rules.test.yaml")):
        done = subprocess.run(
            ["promtool", *words], cwd=RULES, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
    rules = (RULES / "instep.rules.yaml").read_text()
    tested = (RULES / "instep.rules.test.yaml").read_text()
    names = [line.partition("alert: ")[2] for line in rules.splitlines() if "- alert: " in line]
    assert names and all(f"alertname: {name}" in tested for name in names)
