"""The obstacles to a rollback at the writer are named before anything moves, by the dry run and the command alike."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, Node, tree_of
from tests.support.mounts import mounted, unmount

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount and make a file immutable")


def _two_generations(fleet: Fleet) -> tuple[Path, int, int]:
    tree = fleet.tree("main")
    numbers = []
    for text in ("one", "two"):
        for directory in ("a", "b"):
            (tree / directory).mkdir(parents=True, exist_ok=True)
            for name in ("f", "g"):
                (tree / directory / name).write_text(f"{text} {directory}{name}")
        if text == "one":
            fleet.make(1, add=("--publish", "manual"))
        numbers.append(fleet.main.run("publish", "data", "--wait").json["generation"]["number"])
    return tree, numbers[0], numbers[1]


def _refused_alike(main: Node, code: str, *words: str) -> str:
    hints = set()
    for more in (("--dry-run",), ()):
        error = main.run(*words, *more, expect=8).error
        assert error["code"] == code, error
        hints.add(error["hint"])
    (hint,) = hints
    return str(hint)


@needs_root
def test_a_rollback_does_not_pass_a_mount_by(fleet: Fleet) -> None:
    """Goal: paths that a mount hides cannot be rolled back. They were passed by, and the next scan after the umount
    published a mixture of both generations. Paths beside it go back alone."""
    tree, first, second = _two_generations(fleet)
    main, before = fleet.main, tree_of(tree)
    with mounted("tmpfs", tree / "b"):
        hint = _refused_alike(main, "mount_in_the_way", "rollback", "data", str(first))
        assert hint == f"umount {tree / 'b'}; then repeat the command"
        assert main.line()["head"]["number"] == second
        main.run("restore", "data", "a/f", "--generation", str(first))
        assert (tree / "a" / "f").read_text() == "one af"
        unmount(tree / "b")
    assert {p: w for p, w in tree_of(tree).items() if p.startswith(b"b/")} == {
        p: w for p, w in before.items() if p.startswith(b"b/")
    }
    main.run("rollback", "data", str(first))
    assert {(tree / d / n).read_text() for d in "ab" for n in "fg"} == {
        "one af",
        "one ag",
        "one bf",
        "one bg",
    }
    assert main.run("publish", "data").json["changed"] is False
    fleet.wait()
    fleet.assert_same(with_times=False)


@needs_root
def test_a_dry_run_names_what_is_immutable(fleet: Fleet) -> None:
    """Goal: the dry run said yes where the command was refused, and the hint promised that a refused command goes on by
    itself. An immutable file below a directory that goes as one is not in the way."""
    tree, first, _ = _two_generations(fleet)
    main, frozen = fleet.main, tree / "a" / "f"
    if subprocess.run(["chattr", "+i", str(frozen)], check=False, capture_output=True, timeout=20).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        hint = _refused_alike(main, "no_permission", "rollback", "data", str(first))
        assert hint == f"chattr -i {frozen}; then repeat the command"
    finally:
        subprocess.run(["chattr", "-i", str(frozen)], check=True, timeout=20)
    main.run("rollback", "data", str(first))
    assert frozen.read_text() == "one af"
