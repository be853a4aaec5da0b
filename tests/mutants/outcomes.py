"""A plugin of pytest that writes what each test took and which failed, as JSON, to the file that ``OUTCOMES`` names."""

from __future__ import annotations

import json
import os
import sys

import pytest

__all__ = ["OUTCOMES"]

OUTCOMES = "INSTEP_MUTANTS_OUTCOMES"

_seconds: dict[str, float] = {}
_failed: list[str] = []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    tracer = sys.modules.get("sitecustomize")
    if tracer is not None and hasattr(tracer, "go_on"):
        tracer.go_on()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0.0) + report.duration
    if report.failed and report.nodeid not in _failed:
        _failed.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _failed.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    where = os.environ.get(OUTCOMES)
    if where and not hasattr(session.config, "workerinput"):
        with open(where, "w", encoding="utf-8") as file:
            json.dump({"seconds": _seconds, "failed": _failed}, file)
