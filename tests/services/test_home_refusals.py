"""What a home does not take: disks that are full, contents that are others, old tokens, too many removals."""

from __future__ import annotations

import copy
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from instep.errors import InstepError, PeerError
from instep.model.change import CHANGE_SET_MAX_BYTES, ChangeAnswer, wanted_contents
from instep.model.lock import LockDenied, LockGone, LockGranted, LockOutdated
from instep.net.messages import messages as m
from instep.net.transfer import AnswerStatus, TransferAnswer
from tests.support.mounts import mounted
from tests.support.offered import Offerer, digest_of, entry_of, sent, writer_of
from tests.support.services import ServiceNode, Services, services
from tests.support.virtual_time import in_virtual_time

MIB = 1 << 20


async def _begun(cluster: Services, *keys: str) -> tuple[ServiceNode, Offerer]:
    main = cluster.add("main")
    main.writes('offers_from = ["s1", "s2"]', *keys)
    main.start()
    main.write({"a": "one", "b": "two", **{f"many/f{number}": "" for number in range(60)}})
    await main.publish()
    offerer = Offerer(main)
    offerer.see()
    return main, offerer


def kinds(answer: ChangeAnswer) -> dict[str, str]:
    return {outcome.path.decode(): outcome.code or outcome.kind.value for outcome in answer.outcomes}


@in_virtual_time
async def test_a_full_disk_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    """Goal: no room for the contents, or for the copy that is staged: the reason comes back, the tree and the next
    change are as if nothing had been asked. Method: the control folder and the tree on a small file system."""
    with mounted("tmpfs", tmp_path / "main", options="size=24m"):
        async with services(tmp_path) as cluster:
            main, s1 = await _begun(cluster)
            big = "x" * (14 * MIB)
            change_set = s1.changes({"a": big, "b": "small"})
            with pytest.raises(InstepError) as met:
                await s1.submit(change_set, big, "small")
            assert met.value.error_code == "no_space"
            await writer_of(main).changes.driver.settled()
            assert (main.tree / "a").read_text() == "one"
            assert not [p for p in (main.control / "offered").rglob("*") if p.is_file()]
            assert kinds(await s1.offer({"b": "small"})) == {"b": "applied"}


@in_virtual_time
async def test_contents_that_are_not_as_announced_change_nothing(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster)
        home = writer_of(main).changes
        change_set = s1.changes({"a": "edit"})
        sizes = wanted_contents(change_set)

        async def cut() -> AsyncIterator[list[TransferAnswer]]:
            yield [TransferAnswer(0, AnswerStatus.PIECE, 0, b"ed")]

        async def gone() -> AsyncIterator[list[TransferAnswer]]:
            yield [TransferAnswer(0, AnswerStatus.MISSING)]

        for contents, named, code in (
            (sent([b"evil"]), sizes, "content_mismatch"),
            (sent([b"longer than it says"]), sizes, "content_mismatch"),
            (cut(), sizes, "contents_missing"),
            (gone(), sizes, "contents_gone"),
            (sent([]), (), "contents_missing"),
            (sent([b"other"]), ((digest_of("other"), 5),), "bad_change_set"),
            (sent([b"edit", b"edit"]), sizes * 2, "bad_change_set"),
        ):
            with pytest.raises(InstepError) as met:
                await home.submit(s1.name, change_set, contents, sizes=named)
            assert met.value.error_code == code
            await home.driver.settled()
            assert (main.tree / "a").read_text() == "one"
            assert not [p for p in (main.control / "offered").rglob("*") if p.is_file()]
        assert kinds(await s1.submit(change_set, "edit")) == {"a": "applied"}


@in_virtual_time
async def test_rights_of_programs_are_not_given_and_removals_are_counted(tmp_path: Path) -> None:
    """Goal: setuid bits come from a partner only with ``allow_preserve``; ``rm -rf`` at a partner does not empty the
    home (P10)."""
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster, "max_deletions = 50")
        rights = entry_of("a", "one", mode=0o4755)
        assert rights is not None
        assert kinds(await s1.submit(s1.changes({"a": rights}))) == {"a": "metadata_not_allowed"}
        everything = dict.fromkeys([f"many/f{number}" for number in range(60)])
        answer = await s1.offer(everything)
        assert set(kinds(answer).values()) == {"max_deletions"}
        assert len(list((main.tree / "many").iterdir())) == 60


@in_virtual_time
async def test_a_lock_is_granted_honoured_and_ended(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster)
        home, line = writer_of(main).changes, writer_of(main).line

        def asked(user: str, text: str) -> m.LockRequest:
            return m.LockRequest(line, b"a", user, "editor", digest_of(text), 60_000)

        assert isinstance(await home.lock(s1.name, asked("ann", "old")), LockOutdated)
        granted = await home.lock(s1.name, asked("ann", "one"))
        assert isinstance(granted, LockGranted)
        denied = await home.lock(Offerer(main, "s2").name, asked("bob", "one"))
        assert isinstance(denied, LockDenied) and denied.owner.user == "ann"
        assert [view.path for view in home.locks()] == [b"a"]
        other = Offerer(main, "s2")
        other.see()
        assert kinds(await other.offer({"a": "without a lock"})) == {"a": "locked"}
        mine = s1.changes({"a": "under the lock"}, token=granted.fence)
        assert kinds(await s1.submit(mine, "under the lock", releases=True)) == {"a": "applied"}
        assert home.locks() == ()
        again = await home.lock(s1.name, asked("ann", "under the lock"))
        assert isinstance(again, LockGranted)
        main.write({"a": "edited at home"})
        await main.publish()
        refreshed = await home.lock(
            s1.name, m.LockRequest(line, b"a", "ann", "editor", digest_of(""), 0, "", again.fence)
        )
        assert isinstance(refreshed, LockGone), "an edit at the home ends the lock"
        s1.see()
        late = s1.changes({"a": "late"}, token=again.fence)
        assert kinds(await s1.submit(late, "late")) == {"a": "applied"}, "compared and set as without a lock"


@in_virtual_time
async def test_a_home_that_was_restored_from_yesterday_honours_no_old_token(tmp_path: Path) -> None:
    """Goal: counters go back with the state, and a token that was given out since is none. Method: the state of before
    the grant is put back while the home is down; another owner gets the same counter."""
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster)
        line = writer_of(main).line

        def asked(user: str) -> m.LockRequest:
            return m.LockRequest(line, b"a", user, "editor", digest_of("one"), 60_000)

        yesterday = copy.copy(main.store)
        yesterday._tables = main.store._tables.copied()
        old = await writer_of(main).changes.lock(s1.name, asked("ann"))
        assert isinstance(old, LockGranted)
        await main.stop()
        main.store = yesterday
        main.start()
        await main.stands("in_step")
        s2 = Offerer(main, "s2")
        new = await writer_of(main).changes.lock(s2.name, asked("bob"))
        assert isinstance(new, LockGranted)
        assert new.fence.counter == old.fence.counter and new.fence != old.fence
        under = s1.changes({"a": "by the old token"}, token=old.fence)
        assert kinds(await s1.submit(under, "by the old token")) == {"a": "locked"}
        assert (main.tree / "a").read_text() == "one"


@in_virtual_time
async def test_ten_million_paths_and_paths_out_of_the_tree_are_refused_in_bounded_memory(
    tmp_path: Path,
) -> None:
    """Goal: a hostile set costs the home no more than its own bytes a few times over, and changes nothing."""
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster)
        main.partners["s1"] = "replicate = true\ndata = true"
        await main.reload()
        line, one = writer_of(main).line, s1.changes({"a": "edit"})
        edited = one.changes[0].new
        assert edited is not None
        many = msgspec.msgpack.encode(
            (1, "data", "main", bytes(16), "", "", 0, [[b"a", None, None]] * 4_000_000)
        )
        hostile = [many, many[: CHANGE_SET_MAX_BYTES // 2], many[:CHANGE_SET_MAX_BYTES]]
        for path in (b"../evil", b"/etc/passwd", b"a/../../evil", b"", b"x" * 5000, b".instep/id"):
            new = msgspec.structs.replace(edited, path=path)
            change = msgspec.structs.replace(one.changes[0], path=path, base=None, new=new)
            hostile.append(msgspec.structs.replace(one, changes=(change,)).encoded())
        tracemalloc.start()
        try:
            for raw in hostile:
                request = m.SubmitRequest(line, raw)
                with pytest.raises(PeerError) as met:
                    await main.node.peers.submit(s1.name, request, sent([]))
                assert met.value.error_code in ("bad_change_set", "bad_path"), met.value
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 200 * MIB, f"{most >> 20} MiB"
        assert sorted(p.name for p in main.tree.iterdir() if not p.name.startswith(".")) == ["a", "b", "many"]


@in_virtual_time
async def test_a_change_of_writer_voids_all_locks_and_moves_the_home(tmp_path: Path) -> None:
    """Goal: the former home takes nothing more, the new one honours no token of the old, and neither does the old one
    when the line has come back."""
    async with services(tmp_path) as cluster:
        cluster.make(1, writer=('offers_from = ["s1", "s2"]',), partner=('drift = "offer"',))
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"a": "one"})
        await cluster.followed("s1")
        await cluster.in_step("s1")
        line = writer_of(main).line
        asked = m.LockRequest(line, b"a", "ann", "editor", digest_of("one"), 600_000)
        other = Offerer(main, "s2")
        granted = await writer_of(main).changes.lock(other.name, asked)
        assert isinstance(granted, LockGranted)
        other.see()
        change_set = other.changes({"a": "edit"}, token=granted.fence)
        former = writer_of(main).changes
        await main.call("handover", fileset="data", node="s1", timeout_s=40)
        with pytest.raises(InstepError):
            await former.submit(other.name, change_set, sent([b"edit"]), sizes=wanted_contents(change_set))
        assert main.node.services[line.fileset].home is None
        assert writer_of(s1).changes.locks() == ()
        await s1.call("handover", fileset="data", node="main", timeout_s=40)
        await main.stands("in_step")
        back = writer_of(main).changes
        assert back.locks() == ()
        refresh = msgspec.structs.replace(asked, fence=granted.fence)
        assert isinstance(await back.lock(other.name, refresh), LockGone)
        other.see()
        late = other.changes({"a": "edit"}, token=granted.fence)
        assert kinds(await other.submit(late, "edit")) == {"a": "applied"}, "as without a lock"
