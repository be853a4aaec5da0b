"""Owners that change after the first day: the writer says that they do not travel, and a rule that ends is taken back."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from instep.node.config.editing.edits import set_fileset
from tests.support.mounts import need_root
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time, reached

OWN = (0, 0)


@pytest.fixture(autouse=True)
def as_root() -> None:
    need_root("giving files to other users")


def _numbers(node: ServiceNode) -> set[tuple[int, int]]:
    return {(path.stat().st_uid, path.stat().st_gid) for path in node.tree.iterdir() if path.is_file()}


@in_virtual_time
async def test_owners_that_change_later_are_in_status_and_events(tmp_path: Path) -> None:
    """Goal: a tree of root's got files of ``www-data`` after the first day. Partners held them as root's, everything
    said in step, and only ``check`` on the writer knew. Both commands of the warning end it."""
    web = pwd.getpwnam("www-data")
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main = cluster["main"]
        main.write({"a": "1"})
        await cluster.followed("s1")
        await cluster.in_step("s1")

        async def warned() -> str:
            return " ".join(str(each) for each in (await main.status())["warnings"] if "owners" in str(each))

        async def is_looked_at() -> bool:
            return "data" in main.daemon.housekeeping.foreign

        await reached(is_looked_at, lambda: "the first look at owners")
        assert not await warned()
        os.chown(main.tree / "a", web.pw_uid, web.pw_gid)

        async def is_said() -> bool:
            return "www-data:www-data" in await warned()

        await reached(is_said, lambda: "the warning")
        said = await warned()
        assert "instep fileset set data preserve=owner" in said and "'preserve=[]'" in said
        events = [each for each in await main.events() if each["what"] == "owners_not_carried"]
        assert len(events) == 1 and "www-data" in events[0]["text"], events

        await main.set(preserve="[]")
        assert not await warned(), "chosen: others may read the file"
        os.chmod(main.tree / "a", 0o640)
        await reached(is_said, lambda: "chosen, and others may not read the file")
        await main.set(preserve="owner")
        assert not await warned()


@in_virtual_time
async def test_a_rule_of_owners_that_ends_gives_the_files_back(tmp_path: Path) -> None:
    """Goal: from one owner back to ``by_name`` the old owner's files stayed his, and only new ones were right."""
    web, other = pwd.getpwnam("www-data"), pwd.getpwnam("daemon")
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"a": "1", "b": "2"})
        await cluster.followed("s1")
        await cluster.in_step("s1")
        os.chown(s1.tree / "a", other.pw_uid, other.pw_gid)
        await s1.set(linger="2m")
        await s1.stands("in_step")
        assert (other.pw_uid, other.pw_gid) in _numbers(s1), (
            "no rule ever gave owners here: they are left alone"
        )

        async def are(wanted: tuple[int, int]) -> None:
            async def is_so() -> bool:
                return _numbers(s1) == {wanted}

            await reached(is_so, lambda: f"{wanted}: {_numbers(s1)}")
            await s1.stands("in_step")

        await s1.set(owners="www-data")
        await are((web.pw_uid, web.pw_gid))
        await s1.set(owners="by_name")
        await are(OWN)
        await s1.set(owners="www-data")
        await are((web.pw_uid, web.pw_gid))
        await s1.stop()
        set_fileset(s1.directory, "data", {"owners": ""})
        s1.start()
        await are(OWN)
