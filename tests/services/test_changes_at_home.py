"""Changes from elsewhere at a home: applied by compare and set, answered once, published; refused by name."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from instep.model.change import ChangeAnswer, OutcomeKind
from instep.model.manifest.entry import Kind
from instep.tree.objects import abilities
from instep.tree.root.beneath import RenameUnsupportedError
from tests.support.offered import Offerer, entry_of, writer_of
from tests.support.services import ServiceNode, Services, services
from tests.support.virtual_time import in_virtual_time

FILES = {"a": "one", "b": "two", "d/x": "x", "d/y": "y", "gone": "gone"}


async def _begun(cluster: Services, *keys: str) -> tuple[ServiceNode, Offerer]:
    main = cluster.add("main")
    main.writes('offers_from = ["s1", "s2"]', *keys)
    main.start()
    main.write(FILES)
    await main.publish()
    offerer = Offerer(main)
    offerer.see()
    return main, offerer


def kinds(answer: ChangeAnswer) -> dict[str, str]:
    return {outcome.path.decode(): outcome.code or outcome.kind.value for outcome in answer.outcomes}


@in_virtual_time
async def test_a_hundred_accepted_offers_are_live_published_and_leave_no_drift(tmp_path: Path) -> None:
    """Goal: each is applied once and answered with the generation that has it; replaced bytes are archived as
    replaced, none as drift."""
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster)
        before = await main.head()
        for number in range(100):
            answer = await s1.offer({"a": f"edit {number}"})
            assert kinds(answer) == {"a": "applied"}
            assert answer.head is not None
            s1.see()
            assert s1.seen == answer.head
        assert (main.tree / "a").read_text() == "edit 99"
        assert await main.head() == before + 100
        assert not await main.archived("drift")
        assert (await main.archived("replaced")).keys() == {"a"}
        assert not list((main.control / "offered").iterdir())
        rows = await main.log()
        assert "ann" in rows[before + 100]["author"]


@in_virtual_time
async def test_each_path_of_a_set_has_its_own_outcome(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster, 'ignore = ["*.tmp"]')
        main.write({"b": "edited at home", "e": "made at home"})
        answer = await s1.offer(
            {
                "a": "new a",
                "b": "new b",
                "e": "other e",
                "gone": None,
                "made": "made",
                "x.tmp": "ignored",
                "nowhere/f": "no parent",
            }
        )
        assert kinds(answer) == {
            "a": "applied",
            "b": "outdated",
            "e": "outdated",
            "gone": "applied",
            "made": "applied",
            "x.tmp": "ignored",
            "nowhere/f": "not_a_directory",
        }
        live = {o.path: o.entry for o in answer.outcomes if o.kind is OutcomeKind.OUTDATED}
        assert live[b"b"] is not None and live[b"b"].size == len("edited at home")
        assert (main.tree / "b").read_text() == "edited at home"
        assert (main.tree / "made").read_text() == "made"
        assert not (main.tree / "gone").exists()
        again = await s1.offer({"a": "new a"})
        assert kinds(again) == {"a": "same"}


@in_virtual_time
async def test_directories_symlinks_and_modes(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster)
        directory = entry_of("new", None, kind=Kind.DIR)
        link = entry_of("link", "a", kind=Kind.SYMLINK)
        file_d = entry_of("d", "now a file")
        mode = entry_of("b", "two", mode=0o600)
        assert directory and link and file_d and mode
        change_set = s1.changes(
            {"new": directory, "new/f": "f", "link": link, "d": file_d, "d/x": None, "d/y": None, "b": mode}
        )
        answer = await s1.submit(change_set, "f", "a", "now a file", "two")
        assert set(kinds(answer).values()) == {"applied"}, kinds(answer)
        assert (main.tree / "new/f").read_text() == "f"
        assert (main.tree / "link").readlink() == Path("a")
        assert (main.tree / "d").read_text() == "now a file"
        assert (main.tree / "b").stat().st_mode & 0o777 == 0o600


@in_virtual_time
async def test_a_directory_with_another_file_stays_with_it(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster)
        main.write({"d/z": "made at home"})
        answer = await s1.offer({"d": None, "d/x": None, "d/y": None})
        assert kinds(answer) == {"d": "not_empty", "d/x": "applied", "d/y": "applied"}
        assert [p.name for p in (main.tree / "d").iterdir()] == ["z"]


@in_virtual_time
async def test_all_or_nothing(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster)
        main.write({"b": "edited at home"})
        answer = await s1.offer({"a": "new a", "b": "new b"}, whole=True)
        assert kinds(answer) == {"a": "not_whole", "b": "outdated"}
        assert answer.head is None
        assert (main.tree / "a").read_text() == "one"
        answer = await s1.offer({"a": "new a", "gone": None}, whole=True)
        assert set(kinds(answer).values()) == {"applied"}


@in_virtual_time
async def test_a_set_that_is_submitted_twice_is_applied_once(tmp_path: Path) -> None:
    """Goal: the same id has the same answer, also after the file was changed back and after a restart."""
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster)
        change_set = s1.changes({"a": "edit"})
        both = await asyncio.gather(s1.submit(change_set, "edit"), s1.submit(change_set, "edit"))
        assert both[0] == both[1]
        assert kinds(both[0]) == {"a": "applied"}
        (main.tree / "a").unlink()
        main.write({"a": "one"})
        await main.publish()
        assert await s1.submit(change_set, "edit") == both[0]
        await main.stop()
        main.start()
        assert await s1.submit(change_set) == both[0]
        assert (main.tree / "a").read_text() == "one"
        assert writer_of(main).facts.head is not None


@in_virtual_time
async def test_check_names_how_safely_changes_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: an operator learns of the window that a file system without an exchange leaves."""

    def refuse(*_: object) -> None:
        raise RenameUnsupportedError(errno.EINVAL, "no flags here")

    async with services(tmp_path) as cluster:
        main, _ = await _begun(cluster)
        for is_network, words in ((False, "one exchange"), (True, "a save by rename in between")):
            if is_network:
                monkeypatch.setattr(abilities, "rename_exchange", refuse)
            (row,) = [row for row in (await main.call("check"))["checks"] if row["name"] == "changes of data"]
            assert row["ok"] and words in row["theirs"] and "s1" in row["ours"], row
