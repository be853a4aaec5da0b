"""The OpenAPI document against a live node: requests that a generator draws from it get documented answers, never a 5xx."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet
from tests.support.panel import panel_fleet, panel_node, with_token

SECONDS = float(os.environ.get("INSTEP_SOAK_SECONDS", "15"))
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with panel_fleet(tmp_path_factory.mktemp("fuzz")) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def port(ground: Fleet) -> int:
    return panel_node(ground.main)


@pytest.mark.parametrize(
    ("role", "methods"), [("admin", ["GET"]), ("viewer", ["GET", "POST", "PUT", "DELETE"])]
)
def test_generated_requests_get_documented_answers(
    ground: Fleet, port: int, tmp_path: Path, role: str, methods: list[str]
) -> None:
    client = with_token(ground.main, port, f"fuzz-{role}", "--role", role)
    document = client.get("/api/v1/openapi.json").json
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    (tmp_path / "schemathesis.toml").write_text(
        f'[headers]\nAuthorization = "{client.headers["Authorization"]}"\n'
        '[parameters]\n"path.fileset" = "data"\n"path.node" = ["main", "s1"]\n"query.wait" = "1s"\n'
    )
    argv = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--config-file",
        "schemathesis.toml",
        "run",
        "openapi.json",
    ]
    argv += ["--url", f"http://127.0.0.1:{port}", "--checks", CHECKS, "--max-time", str(int(SECONDS))]
    argv += [f"--include-method={method}" for method in methods]
    done = subprocess.run(
        argv, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS * 15, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    tested = re.search(r"Tested: (\d+)", done.stdout)
    assert tested is not None and int(tested[1]) > 30, done.stdout
    assert ground.main.run("status").code in (0, 11)
