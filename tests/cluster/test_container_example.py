"""The example of containers without a builder: its entry on three machines, and its balancer's file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.commands import SOURCE
from tests.support.networks import machines
from tests.support.waiting import eventually

EXAMPLE = Path(__file__).parents[2] / "examples/container"
MAIN, OTHERS = ("main", "10.20.0.1"), {"s1": "10.20.0.2", "s2": "10.20.0.3"}


@dataclass
class Container:
    """What a container is for its entry: a network of its own, and volumes."""

    name: str
    words: tuple[str, ...]
    base: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        with (self.base / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.words, str(EXAMPLE / "begin"), self.name], env=self.environment, stdout=log, stderr=log
            )

    def end(self) -> None:
        """As a container ends: its first process, which is the daemon by then."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [*self.words, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.stdout + done.stderr

    def log(self) -> str:
        return (self.base / f"{self.name}.log").read_text()[-2000:]


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[dict[str, Container]]:
    program = tmp_path / "bin/instep"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m instep.cli "$@"\n')
    program.chmod(0o755)
    (tmp_path / "tokens").mkdir()
    with machines(MAIN, OTHERS) as words:
        made = {name: Container(name, words[name], tmp_path) for name in words}
        for name, one in made.items():
            (tmp_path / f"{name}-tree").mkdir()
            one.environment = {
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": SOURCE,
                "INSTEP_DIR": str(tmp_path / f"{name}-node"),
                "TOKENS": str(tmp_path / "tokens"),
                "TREE": str(tmp_path / f"{name}-tree"),
                **({"PARTNERS": "s1 s2", "NETWORK": "10.20.0.0/24", "ADDRESS": "10.20.0.1:7443"} if name == "main" else {}),
            }  # fmt: skip
        yield made
        for one in made.values():
            one.end()


def test_the_entry_makes_a_cluster_and_goes_on_when_it_is_begun_again(
    containers: dict[str, Container],
) -> None:
    """Goal: three entries, begun at once, are in step and ready; ended and begun again they go on with their volumes."""
    main = containers["main"]
    for number, text in enumerate(("one", "two"), 1):
        (main.base / "main-tree/file").write_text(text)
        for one in containers.values():
            one.begin()
        _serve(containers, number)
        assert {(main.base / f"{name}-tree/file").read_text() for name in containers} == {text}
        for one in containers.values():
            one.end()


def _serve(containers: dict[str, Container], number: int) -> None:
    """Wait until this generation is everywhere, and every node answers its balancer so."""
    main = containers["main"]
    ready = (
        "import urllib.request as r; print(r.urlopen('http://127.0.0.1:7481/ready?fileset=catalog').status)"
    )

    def are_ready() -> bool:
        is_in_step = f"IN STEP   3 of 3 serve generation {number}" in main.run("instep", "status")
        return is_in_step and all(
            one.run(sys.executable, "-c", ready) == "200\n" for one in containers.values()
        )

    eventually(
        are_ready, 120, lambda: main.run("instep", "status") + "".join(c.log() for c in containers.values())
    )


def test_the_balancer_takes_its_file() -> None:
    haproxy = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if haproxy is None:
        pytest.skip("haproxy is not installed")
    done = subprocess.run(
        [haproxy, "-c", "-f", str(EXAMPLE / "haproxy.cfg")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
