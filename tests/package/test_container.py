"""The image of the example of containers, built from the package by ``buildah`` on a bare Debian, without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD_S = 600


def test_the_image_is_built_and_runs(deb: Path, pristine: Path, tmp_path: Path) -> None:
    """Goal: the container file takes the package on a base without systemd; the program runs there as its own user, and a node
    begins in the directory of the volume."""
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed")
    places = (
        "--root",
        str(tmp_path / "store"),
        "--runroot",
        str(tmp_path / "run"),
        "--storage-driver",
        "vfs",
    )

    def buildah(*words: str) -> str:
        done = subprocess.run(
            ["buildah", *places, *words], capture_output=True, text=True, check=False, timeout=BUILD_S,
            env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
        )  # fmt: skip
        if "operation not permitted" in done.stderr.lower():
            pytest.skip(f"buildah cannot work on this machine: {done.stderr.strip()[-300:]}")
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    context = tmp_path / "context"
    (context / "dist").mkdir(parents=True)
    shutil.copy(deb, context / "dist")
    shutil.copytree(ROOT / "examples/container", context / "examples/container")
    base = buildah("from", "scratch").strip()
    buildah("add", base, str(pristine), "/")
    buildah("commit", base, "bare")
    file = str(context / "examples/container/Containerfile")
    buildah(
        "build",
        "--pull-never",
        "--build-arg",
        "BASE=localhost/bare",
        "--file",
        file,
        "--tag",
        "instep",
        str(context),
    )
    made = buildah("from", "--pull-never", "localhost/instep").strip()
    try:
        assert buildah("run", made, "--", "instep", "--version").startswith("instep ")
        assert buildah("run", made, "--", "id", "-un").strip() == "instep"
        assert "node main in /var/lib/instep" in buildah(
            "run", made, "--", "instep", "--dir", "/var/lib/instep", "init", "main"
        )
    finally:
        buildah("rm", "--all")
