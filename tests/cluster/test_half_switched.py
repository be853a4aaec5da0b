"""A switch that cannot go on, on real daemons: undone and said so; or half switched, named path by path and not
ready."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.test_readiness import asked, put
from tests.support.crashes import Crasher, assert_rested, crashers
from tests.support.fleet import Fleet, free_port
from tests.support.waiting import eventually

OLD = {f"d/f{number}": f"old {number}" for number in range(6)}
NEW = {path: text.replace("old", "new") for path, text in OLD.items()}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a file immutable")


def made(fleet: Fleet) -> int:
    lay(fleet.tree("main"), OLD)
    fleet.make(partners=1)
    fleet.wait()
    health = free_port()
    put(fleet["s1"], health=f"127.0.0.1:{health}")
    assert eventually(lambda: asked(health)[0] == 200)
    return health


def lay(tree: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)


def there(fleet: Fleet) -> dict[str, str]:
    root = fleet.tree("s1")
    return {str(path.relative_to(root)): path.read_text() for path in root.glob("d/*")}


def failing(partner: Crasher, code: str) -> dict[str, object]:
    return partner.await_line(lambda line: line["standing"] == "failing" and line["code"] == code)


def test_a_failing_switch_is_undone_and_what_was_live_goes_on_being_served(fleet: Fleet) -> None:
    health = made(fleet)
    with crashers(fleet, "s1") as (partner,):
        partner.kill()
        partner.start("switch.step.after:3=eio")
        fleet.write(NEW)
        failing(partner, "disk_error")
        assert eventually(lambda: there(fleet) == OLD)
        assert eventually(lambda: asked(health)[0] == 200)
        partner.kill()
        partner.start()
        partner.await_in_step(fleet.head())
        assert there(fleet) == NEW
        assert_rested(fleet, "s1")


def test_what_is_neither_finished_nor_undone_names_both_sides_and_is_not_ready(fleet: Fleet) -> None:
    health = made(fleet)
    with crashers(fleet, "s1") as (partner,):
        partner.kill()
        partner.start("switch.step.after:3=eio,undo.step.before=eio")
        fleet.write(NEW)
        line = failing(partner, "half_switched")
        new, old = (
            set(there(fleet).values()) & set(NEW.values()),
            set(there(fleet).values()) & set(OLD.values()),
        )
        assert len(new) == 3, line
        assert len(old) == 3, line
        assert "3 paths are" in str(line["reason"])
        assert "d/f0" in str(line["reason"])
        assert eventually(lambda: asked(health)[0] == 503)
        partner.kill()
        partner.start()
        partner.await_in_step(fleet.head())
        assert there(fleet) == NEW
        assert eventually(lambda: asked(health)[0] == 200)


@pytest.fixture
def frozen(fleet: Fleet) -> Iterator[Path]:
    """A file of the partner that no user can change."""
    path = fleet.tree("s1") / "d" / "f3"
    yield path
    subprocess.run(["chattr", "-i", str(path)], check=False, capture_output=True, timeout=20)


@needs_root
def test_an_immutable_file_stops_a_switch_before_its_first_step_until_it_is_freed(
    fleet: Fleet, frozen: Path
) -> None:
    made(fleet)
    if subprocess.run(["chattr", "+i", str(frozen)], check=False, capture_output=True, timeout=20).returncode:
        pytest.skip("this file system has no immutable files")
    partner, written = fleet["s1"], fleet.tree("main") / "d" / "f3"
    shutil.copy2(written, fleet.base / "as-before")
    fleet.write(NEW)
    assert eventually(lambda: partner.line()["code"] == "no_permission", 30)
    line = partner.line()
    assert there(fleet) == OLD
    assert f"chattr -i {frozen}" in line["next"][0]
    # A newer generation that leaves the path as it is goes past it; the one that is back after that waits again.
    (fleet.base / "as-before").rename(written)
    fleet.wait()
    assert there(fleet) == {**NEW, "d/f3": OLD["d/f3"]}
    fleet.write({"d/f3": NEW["d/f3"]})
    assert eventually(lambda: partner.line()["code"] == "no_permission", 30)
    subprocess.run(["chattr", "-i", str(frozen)], check=True, timeout=20)
    partner.run("retry", "data")
    fleet.wait()
    assert there(fleet) == NEW


@needs_root
def test_a_revert_that_fails_half_way_is_taken_back_and_heals_when_its_cause_ends(
    fleet: Fleet, frozen: Path
) -> None:
    made(fleet)
    partner = fleet["s1"]
    partner.stop()
    lay(fleet.tree("s1"), {"d/f1": "drift 1", "d/f3": "drift 3"})
    if subprocess.run(["chattr", "+i", str(frozen)], check=False, capture_output=True, timeout=20).returncode:
        pytest.skip("this file system has no immutable files")
    partner.start()
    assert eventually(lambda: partner.line()["code"] == "no_permission", 30)
    subprocess.run(["chattr", "-i", str(frozen)], check=True, timeout=20)
    partner.run("retry", "data")
    partner.await_standing("in_step")
    assert eventually(lambda: there(fleet) == OLD)
