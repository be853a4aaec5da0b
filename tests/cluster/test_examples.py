"""The worked examples, as an operator runs them: with real servers, and no failed request."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def lacks(*programs: str) -> str:
    missing = [name for name in programs if shutil.which(name, path=SEARCHED) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


def run_example(name: str, *words: str) -> dict[str, Any]:
    """The report of an example; fails the test with its output when it does not end well."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name / "example.py"), "--json", *words],
        capture_output=True, text=True, timeout=550, check=False, cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["failures"] == 0
    assert report["untold"] == [], "a drain or a return waited in vain for a balancer"
    return report


@pytest.mark.timeout(600)
@pytest.mark.skipif(
    bool(lacks("haproxy", "nginx", "mapserv", "map2img")),
    reason=lacks("haproxy", "nginx", "mapserv", "map2img"),
)
def test_mapserver_nodes_behind_haproxy() -> None:
    """Goal: changes of style reach three MapServer nodes under load without one failed or mixed picture; a mapfile
    that serves no WMS is stopped at the first node and put back, and no client saw it. By itself the example makes ten
    changes."""
    report = run_example("mapserver", "--rollouts", "3")
    assert report["changes"] == 3
    assert report["rollouts"]["put_back"] == 2
    assert report["requests"] > 200
    assert report["asked_again"] == 0, "HAProxy closes no connection"
    assert set(report["answered_by"]) == {"m1", "m2", "m3"}


CMS = ("haproxy", "nginx", "pg_createcluster")


@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(lacks(*CMS)), reason=lacks(*CMS))
def test_staging_and_production_behind_haproxy() -> None:
    """Goal: a run in both directions under load fails no request and mixes no page, while each home is drained and
    returned by itself; a collision, an edited template and an unmarked database are named."""
    report = run_example("cms", "--rollouts", "1")
    assert set(report["drains_for_runs"]) == {"s1", "p1"}
    for side, names in (("staging", {"s1", "s2"}), ("production", {"p1", "p2"})):
        assert report[side]["requests"] > 50
        assert set(report[side]["answered_by"]) == names


@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(lacks("nginx", "pgrep")), reason=lacks("nginx", "pgrep"))
def test_nginx_nodes_whose_configuration_is_the_fileset() -> None:
    """Goal: a generation that ``nginx -t`` rejects on the staged tree goes live nowhere, and one that answers 500 on
    the last node is put back on all three, while the nginx in front serves without a failed request."""
    report = run_example("nginx-sites", "--rollouts", "1")
    assert report["rollouts"]["put_back"] == 1
    assert report["requests"] > 200
    assert set(report["answered_by"]) == {"n1", "n2", "n3"}


@pytest.mark.timeout(600)
def test_catalogues_of_three_organisations_over_a_hub() -> None:
    """Goal: without a common authority, documents arrive whole over a hub and are edited there under a lock; a late save, a
    collision and a document that cannot be had are named, and no reader ever gets half a document."""
    report = run_example("catalogues", "--documents", "10")
    assert report["documents_read"] > 100


DEPLOY_HA = ("haproxy", "openssl", "pg_createcluster")


@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(lacks(*DEPLOY_HA)), reason=lacks(*DEPLOY_HA))
def test_deploy_servers_on_one_database_and_one_folder() -> None:
    """Goal: an existing server becomes three: moved data, one version, users that keep their server, a killed server
    that fails no request, jobs once, and a backup that brings everything back."""
    report = run_example("deploy-ha")
    assert report["requests"] > 50 and set(report["answered_by"]) == {"s1", "s2", "s3"}
    assert report["backup"] == "bracketed"
    assert sum(report["imports"].values()) == 5 and all(each.startswith("done") for each in report["imports"])
    assert report["ticks"] > 5
