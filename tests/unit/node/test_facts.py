"""Where facts come from, and what bounds them."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from instep.model.ids import FilesetName, NodeName
from instep.node import facts
from instep.node.fact_cache import FactCache
from instep.node.settings import FactSettings, FilesetSettings, Settings
from instep.node.values import Address
from tests.support.waiting import eventually

ADDRESS = Address("127.0.0.1", 7443)
SH = "/bin/sh"


def told(**fact: FactSettings) -> dict[str, str]:
    settings = Settings(name=NodeName("main"), listen=ADDRESS, advertise=ADDRESS, facts=fact)
    found = facts.facts_of(settings)
    return {name: found[name] for name in fact}


def test_every_source(tmp_path: Path) -> None:
    """Goal: E4, G3, G4. Each source gives its value, one that cannot be had says why. Method: one of each."""
    (tmp_path / "lib").mkdir()
    for name in ("b.jar", "a.jar"):
        (tmp_path / "lib" / name).write_text(name)
    secret = tmp_path / "secret"
    secret.write_text("password")
    found = told(
        run=FactSettings(run=(SH, "-c", "echo 'version \"17.0.1\"' >&2"), match='version "([^"]+)"'),
        failed=FactSettings(run=(SH, "-c", "echo 1; exit 3")),
        missing=FactSettings(run=(str(tmp_path / "nothing"),)),
        plugins=FactSettings(list=tmp_path / "lib"),
        war=FactSettings(digest_of=tmp_path / "lib" / "a.jar"),
        database=FactSettings(fingerprint_of=secret),
        mode=FactSettings(value="production"),
    )
    assert found["run"] == "17.0.1"
    assert found["failed"] == "<ended with 3>"
    assert found["missing"] == "<cannot be read: No such file or directory>"
    assert found["plugins"] == "a.jar\nb.jar"
    assert len(found["war"]) == 64
    assert len(found["database"]) == 32
    assert "password" not in found["database"]
    assert found["mode"] == "production"
    secret.write_text("passworD")
    assert told(database=FactSettings(fingerprint_of=secret)) != {"database": found["database"]}
    assert (
        told(other=FactSettings(fingerprint_of=secret))["other"]
        != told(database=FactSettings(fingerprint_of=secret))["database"]
    ), "equal secrets under two names look different"


def test_a_program_that_prints_without_end_is_ended() -> None:
    """Goal: bounded. Method: ``yes`` prints forever; the answer comes at the limit, not at the deadline."""
    assert told(endless=FactSettings(run=("/usr/bin/yes",))) == {"endless": "<prints more than 65536 bytes>"}


def test_what_a_program_started_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: bounded. Method: a program leaves a child that holds the pipe; the deadline ends the group."""
    monkeypatch.setattr(facts, "RUN_S", 0.5)
    pid_file = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {pid_file}; exit 0"
    assert told(slow=FactSettings(run=(SH, "-c", script))) == {"slow": "<no answer within 0.5 s>"}
    state = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    eventually(lambda: not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z", 5)


def test_peers_cannot_make_a_program_run_often(tmp_path: Path) -> None:
    """Goal: rate bounded. Method: fifty questions at once and after another run the program once; another
    configuration asks anew."""
    ran = tmp_path / "ran"
    fact = FactSettings(run=(SH, "-c", f"echo x >> {ran}; echo 1"))
    settings = Settings(name=NodeName("main"), listen=ADDRESS, advertise=ADDRESS, facts={"one": fact})
    fileset = FilesetSettings(FilesetName("data"), tmp_path, NodeName("main"), None)

    async def ask() -> None:
        cache = FactCache()
        for _ in range(2):
            answers = await asyncio.gather(*(cache.facts(settings, fileset, ["one"]) for _ in range(25)))
            assert {answer["one"] for answer in answers} == {"1"}
        assert len(ran.read_text().splitlines()) == 1
        await cache.facts(replace(settings, fingerprint="other"), fileset, ["one"])
        assert len(ran.read_text().splitlines()) == 2

    asyncio.run(ask())
    assert os.listdir(tmp_path) == ["ran"]
