"""The wheel in a fresh virtual environment: it has all files, its command runs, a node begins and answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/instep"


def test_the_wheel_has_every_file_of_the_sources(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = (path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert packed == {f"instep/{path.relative_to(SOURCE)}" for path in files}


def test_the_wheel_runs_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True, timeout=120)
    into = str(place / "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", into, "install", "--quiet", "--no-compile"]
    subprocess.run(
        [*pip, "--require-hashes", "--only-binary=:all:", "-r", ROOT / "requirements.lock"],
        check=True,
        timeout=240,
    )
    subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True, timeout=120)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "INSTEP_DIR": str(tmp_path / "node")}

    def instep(*words: str) -> str:
        done = subprocess.run(
            [place / "bin/instep", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert instep("--version").startswith("instep ")
    assert json.loads(instep("init", "main", "--start", "--json"))["started"]
    try:
        assert json.loads(instep("status", "--json"))["daemon"] == "running"
    finally:
        instep("stop")
