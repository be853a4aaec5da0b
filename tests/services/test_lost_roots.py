"""A root that is gone, or that lost its marker: the command that ``status`` names brings it back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from instep.errors import RefusedError
from instep.model.ids import fileset_name
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached

FILES = {f"d/file{number}": str(number) for number in range(30)}


@in_virtual_time
async def test_the_root_of_a_partner_is_lost_and_accepted_again(tmp_path: Path) -> None:
    """Goal: with the disk of the tree gone, an accept that says nothing new is refused and not answered with success,
    and the one that status names brings every file back, with nothing removed and no restart."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        main.write(FILES)
        await cluster.followed("s1")
        await cluster.in_step("s1")
        shutil.rmtree(s1.control)
        shutil.rmtree(s1.tree)
        line = await s1.stands("blocked", code="root_missing")
        assert f"instep fileset accept data {s1.tree} --replace" in line["next"][0]
        await s1.refuses("root_missing", "fileset_accept", name="data", path=str(s1.tree))
        assert (await s1.accepts("replace"))["changed"] is True
        await s1.holds("d/file29", "29")
        await cluster.in_step("s1")


@in_virtual_time
async def test_a_lost_marker_is_written_again(tmp_path: Path) -> None:
    """Goal: a directory without its marker is adopted by the command that status names; a dry run and a second adopt
    change nothing, and a directory that holds nothing of the fileset is refused."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        main.write(FILES)
        await cluster.followed("s1")
        await cluster.in_step("s1")
        asked: dict[str, str] = {}
        for node in (main, s1):
            asked = {"fileset": "data", "path": str(node.tree)}
            shutil.rmtree(node.tree / ".instep")
            await node.call("retry", fileset="data")
            node.write({f"d/of-{node.name}": "1"})
            line = await node.stands("blocked", "failing", "held", code="marker_missing")
            typed = f"instep fileset adopt data {node.tree}"
            assert any(typed in step for step in line["next"]), line
            found = await node.call("fileset_adopt", **asked, dry_run=True)
            assert (found["changed"], found["only_here"], found["only_there"]) == (False, 1, 0)
            assert (await node.call("fileset_adopt", **asked))["changed"] is True
            assert (await node.call("fileset_adopt", **asked))["changed"] is False
            await node.stands("in_step")
        await cluster.in_step("s1")
        shutil.rmtree(s1.tree / ".instep")
        shutil.rmtree(s1.tree / "d")
        error = await s1.refuses("nothing_of_it", "fileset_adopt", **asked)
        assert f"instep fileset accept data {s1.tree} --replace" in str(error.hint)


@in_virtual_time
async def test_what_was_published_meanwhile_arrives_after_the_adoption(tmp_path: Path) -> None:
    """Goal: a head that came while the partner could not write its root is fetched once the root is adopted: the sender
    has it, and does not send it twice."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        main.write(FILES)
        await cluster.followed("s1")
        await cluster.in_step("s1")
        await s1.stop()
        s1.start()
        await cluster.in_step("s1")
        shutil.rmtree(s1.tree / ".instep")
        await s1.stands("blocked", "failing", "held", code="marker_missing")
        main.write({"d/meanwhile": "1"})
        published = (await main.publish())["generation"]["number"]

        async def is_known() -> bool:
            return bool((await s1.line())["head"]["number"] == published)

        await reached(is_known, lambda: f"head {published}")
        await s1.call("fileset_adopt", fileset="data", path=str(s1.tree))
        await cluster.in_step("s1")
        assert (s1.tree / "d/meanwhile").read_text() == "1"


def _not_json(tree: Path) -> None:
    (tree / ".instep/id").write_text("not a marker")


def _marker_is_a_folder(tree: Path) -> None:
    (tree / ".instep/id").unlink()
    (tree / ".instep/id").mkdir()


def _is_a_file(tree: Path) -> None:
    shutil.rmtree(tree / ".instep")
    (tree / ".instep").write_text("a program's own")


def _is_a_link(tree: Path) -> None:
    (tree / ".instep").rename(tree.with_name("elsewhere"))
    (tree / ".instep").symlink_to(tree.with_name("elsewhere"))


def _older_copy(tree: Path) -> None:
    marker = json.loads((tree / ".instep/id").read_text())
    (tree / ".instep/id").write_text(json.dumps({**marker, "random": "0" * 32}))


@pytest.mark.parametrize("name", ["main", "s1"])
@pytest.mark.parametrize("damage", [_not_json, _marker_is_a_folder, _is_a_file, _is_a_link, _older_copy])
@in_virtual_time
async def test_a_damaged_marker_is_made_anew_by_the_command_that_status_names(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    """Goal: "find out which program changed it" was all that was said, and adopt failed like everything else. What lay
    there is kept under a name that no scan takes for content."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, node = cluster["main"], cluster[name]
        main.write({"a": "1"})
        await cluster.followed("s1")
        await cluster.in_step("s1")
        damage(node.tree)
        code = "marker_replaced" if damage is _older_copy else "marker_damaged"
        line = await node.stands("blocked", "failing", "held", code=code)
        assert any(f"instep fileset adopt data {node.tree}" in step for step in line["next"]), line
        if name == "s1":
            steps: list[str] = []

            async def is_told() -> bool:
                steps[:] = (await main.line())["partners"][0]["next"]
                return bool(steps)

            await reached(is_told, lambda: "the report")
            assert steps[0].startswith("on s1: ") and "instep fileset adopt data" in steps[0], steps
        asked = {"fileset": "data", "path": str(node.tree)}
        assert not (await node.call("fileset_adopt", **asked, dry_run=True))["changed"]
        assert (await node.call("fileset_adopt", **asked))["changed"]
        assert not (await node.call("fileset_adopt", **asked))["changed"]
        main.write({"a": "2"})
        await cluster.in_step("s1")
        kept = [*node.tree.glob(".instep-damaged-*"), *node.tree.glob(".instep/id-damaged-*")]
        assert len(kept) == (0 if damage is _older_copy else 1), kept
        elsewhere = node.tree.with_name("elsewhere")
        assert not elsewhere.exists() or (elsewhere / "id").is_file(), "nothing behind the link is touched"


def _emptied(tree: Path) -> None:
    for each in tree.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()


def _replaced(tree: Path) -> None:
    """By another directory with the same files."""
    tree.rename(tree.with_name("old"))
    shutil.copytree(tree.with_name("old"), tree, ignore=shutil.ignore_patterns(".instep"))


@pytest.mark.parametrize("name", ["main", "s1"])
@pytest.mark.parametrize(
    ("lose", "code"),
    [
        (lambda tree: tree.rename(tree.with_name("old")), "root_missing"),
        (_emptied, "marker_missing"),
        (_replaced, "marker_missing"),
        (lambda tree: (tree / ".instep/id").unlink(), "marker_missing"),
    ],
)
@in_virtual_time
async def test_a_node_serves_what_it_can_see_now(
    tmp_path: Path, name: str, lose: Callable[[Path], None], code: str
) -> None:
    """Goal: with its root gone, replaced or without its marker a node is not ready at the very next question, its
    status says so, and the writer does not count it; with the root back it serves again by itself."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, node = cluster["main"], cluster[name]
        main.write(FILES)
        await cluster.followed("s1")
        await cluster.in_step("s1")
        assert (await node.fitness()).is_ready
        shutil.copytree(node.tree, tmp_path / "kept", symlinks=True)
        lose(node.tree)
        found = await node.fitness()
        assert (found.is_ready, found.code) == (False, code), found.document
        assert not any(str(tmp_path) in reason for reason in found.reasons), "balancers get no paths"
        line = await node.line()
        assert (line["standing"], line["code"]) == ("blocked", code), line
        rows = {row["name"]: row for row in (await main.line())["partners"]}

        async def is_known() -> bool:
            rows.update({row["name"]: row for row in (await main.line())["partners"]})
            return name == "main" or rows["s1"]["code"] == code

        await reached(is_known, lambda: f"the writer knows: {rows}")
        if node.tree.exists():
            shutil.rmtree(node.tree)
        shutil.copytree(tmp_path / "kept", node.tree, symlinks=True)
        assert (await node.fitness()).is_ready
        await node.stands("in_step")
        await cluster.in_step("s1")


@in_virtual_time
async def test_the_place_of_a_root_is_chosen_anew_when_something_else_lies_there(tmp_path: Path) -> None:
    """Goal: an apply asks five times for the place of its root, and chooses it once; another control folder, or another
    object under the root's name, shows the next time."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        s1 = cluster["s1"]
        await cluster.followed("s1")
        await cluster.in_step("s1")
        tree = s1.node.services[fileset_name("data")].tree
        place = tree.place()
        assert tree.place() is place
        s1.control.rename(s1.control.with_name("away"))
        assert tree.place() == place
        assert (s1.control / "place").exists()
        elsewhere = s1.tree.rename(s1.tree.with_name("elsewhere"))
        s1.tree.symlink_to(elsewhere)
        with pytest.raises(RefusedError) as refused:
            tree.place()
        assert refused.value.error_code == "root_is_symlink"
