"""Locks of single paths: granted by the home alone, kept by their owners, and no harm when they are over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from instep.api.command import Role
from instep.core.changes.home_facts import HomeFacts
from instep.errors import ContentionError, NotAllowedError, UnavailableError
from instep.model.ids import LineId, fileset_name
from instep.node.access.caller import Caller, DoorName
from instep.node.access.door import CALLER
from instep.store.port import ChangeSide
from tests.support.offering import FILES, alike, begun
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time, reached


async def _lock(node: ServiceNode, path: str = "sub/f1", **params: Any) -> dict[str, Any]:
    return await node.call("lock", fileset="data", path=path, ttl_ms=60_000, **params)


@in_virtual_time
async def test_a_lock_is_granted_refreshed_submitted_and_released(tmp_path: Path) -> None:
    """Goal: the way of one lock, with the policy that reverts: while it lasts the edit is not reverted, its release
    submits it, and the list has it in between, here and at the home."""
    async with services(tmp_path) as cluster:
        main, s1, s2 = await begun(cluster, drift='drift = "revert"')
        granted = await _lock(s1, owner="ana", client="word")
        assert (
            granted["owner"] == "ana@s1" and granted["changed"] and granted["until"] > granted["server_time"]
        )
        again = await _lock(s1, owner="ana", client="word")
        assert again["token"] == granted["token"] and not again["changed"]
        for node in (main, s1, s2):
            rows = (await node.call("locks", fileset="data"))["locks"]
            assert [(row["path"], row["owner"], row["token"]) for row in rows] == [
                ("sub/f1", "ana@s1", granted["token"])
            ], node.name
        s1.write({"sub/f1": "under a lock\n", "sub/f2": "without\n"})
        await s1.holds("sub/f2", "file 2\n")
        assert (s1.tree / "sub/f1").read_text() == "under a lock\n"
        await main.holds("sub/f1", "under a lock\n")
        s1.write({"sub/f1": "and once more\n"})
        done = await s1.call(
            "unlock", fileset="data", path="sub/f1", owner="ana", client="word", message="wider"
        )
        assert done["outcome"] in ("applied", "same") and done["generation"] is not None
        row = (await main.log())[done["generation"]["number"]]
        assert row["message"] == "wider" and "ana" in row["author"], row
        await alike(main, s1, s2)
        assert (s2.tree / "sub/f1").read_text() == "and once more\n"
        assert (await s1.call("locks", fileset="data"))["locks"] == []
        assert "sub/f1" not in await s1.archived("drift")


@in_virtual_time
async def test_a_locked_path_is_denied_to_others_and_to_other_programs_of_the_owner(tmp_path: Path) -> None:
    """Goal: ``locked`` names owner, program and time; another program of the same person is another owner; a change of
    another server is not made while the lock is in force."""
    async with services(tmp_path) as cluster:
        main, s1, s2 = await begun(cluster)
        await _lock(s1, owner="ana", client="word")
        for node, params in (
            (s1, {"owner": "ana", "client": "vi"}),
            (s2, {"owner": "ana", "client": "word"}),
        ):
            with pytest.raises(ContentionError) as denied:
                await _lock(node, **params)
            assert denied.value.error_code == "locked" and denied.value.exit_code == 6
            assert denied.value.facts["owner"] == "ana@s1" and denied.value.facts["client"] == "word"
            assert denied.value.facts["until"]
            assert "on main: instep lock break data sub/f1 " in str(denied.value.hint), (
                "only the home's operators may"
            )
        with pytest.raises(ContentionError) as denied:
            await _lock(main)
        assert ", instep lock break data sub/f1 " in str(denied.value.hint)
        s2.write({"sub/f1": "of s2\n"})
        await s2.holds("sub/f1", "file 1\n")
        assert "of s2\n" in await s2.taken_out("sub/f1", tmp_path / "out")
        assert (main.tree / "sub/f1").read_text() == "file 1\n"
        with pytest.raises(ContentionError):
            await s1.call("unlock", fileset="data", path="sub/f1", owner="ana", client="vi")
        assert len((await main.call("locks", fileset="data"))["locks"]) == 1


@in_virtual_time
async def test_a_lock_on_an_old_file_is_outdated_with_what_to_fetch(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        main, s1 = await begun(cluster, 1)
        await s1.call("pause", fileset="data")
        main.write({"sub/f1": "newer\n"})
        await main.publish()
        with pytest.raises(ContentionError) as refused:
            await _lock(s1)
        assert (refused.value.error_code, refused.value.exit_code) == ("outdated", 6)
        assert refused.value.facts["generation"] == await main.head()
        assert refused.value.hint is not None and "instep wait" in refused.value.hint


@in_virtual_time
async def test_only_the_home_grants_a_lock(tmp_path: Path) -> None:
    """Goal: with the home out of reach there is no lock, and no time is waited for it."""
    async with services(tmp_path) as cluster:
        _, s1 = await begun(cluster, 1)
        cluster.cut("main", "s1")
        await s1.stands("unreachable", "in_step")

        async def is_refused() -> bool:
            try:
                await _lock(s1)
            except UnavailableError as error:
                return error.error_code == "home_unreachable"
            return False

        await reached(is_refused, lambda: "no lock without the home")


@in_virtual_time
async def test_a_lock_is_broken_and_taken_over_for_a_reason(tmp_path: Path) -> None:
    """Goal: an operator at the home breaks a lock, or takes it over in one act; the former owner's change is then compared
    like any other, and its program learns why the lock is gone."""
    async with services(tmp_path) as cluster:
        main, s1 = await begun(cluster, 1)
        await _lock(s1, owner="ana")
        broken = await main.call(
            "break_lock", fileset="data", path="sub/f1", reason="left for the day", steals=True
        )
        assert broken["lock"]["token"]
        with pytest.raises(ContentionError):
            await _lock(s1, owner="ana")
        s1.write({"sub/f1": "late\n"})
        await s1.holds("sub/f1", "file 1\n")
        assert "late\n" in await s1.taken_out("sub/f1", tmp_path / "out")
        assert (main.tree / "sub/f1").read_text() == "file 1\n"


@in_virtual_time
@pytest.mark.parametrize("is_published_before", [False, True])
async def test_a_release_at_the_home_says_which_generation_has_the_edit(
    tmp_path: Path, is_published_before: bool
) -> None:
    """Goal: whether the home's own scan was quicker or not; the lock lasts until its owner is done."""
    async with services(tmp_path) as cluster:
        main, s1 = await begun(cluster, 1)
        await _lock(main)
        untouched = await main.call("unlock", fileset="data", path="sub/f1")
        assert (untouched["outcome"], untouched["generation"]) == (None, None)
        before = await main.head()
        granted = await _lock(main)
        main.write({"sub/f1": "at the home\n"})
        if is_published_before:
            await s1.holds("sub/f1", "at the home\n")
            assert [row["token"] for row in (await s1.call("locks", fileset="data"))["locks"]] == [
                granted["token"]
            ]
        again = await _lock(main, token=granted["token"])
        assert again["token"] == granted["token"] and not again["changed"]
        done = await main.call(
            "unlock", fileset="data", path="sub/f1", token=granted["token"], message="wider"
        )
        assert done["outcome"] == "applied" and done["generation"]["number"] == before + 1
        for command in ("unlock", "lock"):
            with pytest.raises(ContentionError) as gone:
                await main.call(command, fileset="data", path="sub/f1", token=granted["token"])
            assert (gone.value.error_code, gone.value.facts["why"]) == ("lock_gone", "released")
        await alike(main, s1)


@in_virtual_time
async def test_a_release_at_a_home_that_publishes_by_hand_says_so(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        cluster.make(0, writer=('publish = "manual"',))
        main = cluster["main"]
        main.write(FILES)
        await main.publish()
        await _lock(main)
        main.write({"sub/f1": "at the home\n"})
        done = await main.call("unlock", fileset="data", path="sub/f1")
        assert (done["outcome"], done["generation"]) == ("applied", None)
        assert "by hand" in done["reason"]


@in_virtual_time
async def test_another_owner_is_named_only_by_those_who_may(tmp_path: Path) -> None:
    """Goal: root and the node's own user act for others; another user of the machine, whatever its role, is itself, and
    cannot end a lock of another person either, though lists show it the token."""
    async with services(tmp_path) as cluster:
        _, s1 = await begun(cluster, 1)
        granted = await _lock(s1, owner="ana")
        mark = CALLER.set(Caller("eve", Role.ADMIN, None, DoorName.SOCKET))
        try:
            for command, params in (("lock", {"path": "sub/f2"}), ("unlock", {"path": "sub/f1"})):
                with pytest.raises(NotAllowedError) as refused:
                    await s1.call(command, fileset="data", owner="ana", **params)
                assert refused.value.error_code == "owner_not_yours" and refused.value.exit_code == 5
            with pytest.raises(ContentionError) as other:
                await s1.call("unlock", fileset="data", path="sub/f1", token=granted["token"])
            assert other.value.error_code == "no_lock"
            assert (await s1.call("lock", fileset="data", path="sub/f2"))["owner"] == "eve@s1"
        finally:
            CALLER.reset(mark)
        assert len((await s1.call("locks", fileset="data"))["locks"]) == 2


@in_virtual_time
async def test_a_removal_that_was_refused_is_never_made_later(tmp_path: Path) -> None:
    """Goal: a file that is removed on one server while a person on another holds its lock comes back there, and stays
    when the lock is over."""
    async with services(tmp_path) as cluster:
        main, s1, s2 = await begun(cluster)
        await _lock(s1, owner="ana")
        (s2.tree / "sub/f1").unlink()
        await s2.holds("sub/f1", "file 1\n")
        await s1.call("unlock", fileset="data", path="sub/f1", owner="ana")
        s2.write({"sub/f2": "something else\n"})
        await main.holds("sub/f2", "something else\n")
        await alike(main, s1, s2)
        assert (s2.tree / "sub/f1").read_text() == "file 1\n"


@in_virtual_time
async def test_a_home_restored_from_yesterday_honours_no_old_token(tmp_path: Path) -> None:
    """Goal: the state of the home goes back to before a grant. It grants the path to another node, under the same counter:
    the first holder's save is not made, and its release says that the lock is not known."""
    async with services(tmp_path) as cluster:
        main, s1, s2 = await begun(cluster, drift='drift = "revert"')
        line = LineId(fileset_name("data"), main.name)
        yesterday = main.store.load_changes(line, ChangeSide.HOME) or msgspec.msgpack.encode(HomeFacts())
        first = await _granted(s1, owner="ana")
        await main.stop()
        main.store.save_changes(line, ChangeSide.HOME, yesterday)
        main.start()
        second = await _granted(s2, owner="ben")
        assert first["token"].rpartition(".")[0] == second["token"].rpartition(".")[0], "the same counter"
        assert first["token"] != second["token"]
        s1.write({"sub/f1": "under the old token\n"})
        await s1.holds("sub/f1", "file 1\n")
        assert "under the old token\n" in await s1.taken_out("sub/f1", tmp_path / "out")
        assert (main.tree / "sub/f1").read_text() == "file 1\n"
        rows = (await main.call("locks", fileset="data"))["locks"]
        assert [row["token"] for row in rows] == [second["token"]]


async def _granted(node: ServiceNode, **params: Any) -> dict[str, Any]:
    """A lock, as soon as the home can be asked again."""
    found: dict[str, Any] = {}

    async def is_granted() -> bool:
        try:
            found.update(await _lock(node, **params))
        except UnavailableError:
            return False
        return True

    await reached(is_granted, lambda: f"a lock for {node.name}")
    return found
