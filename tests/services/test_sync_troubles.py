"""Troubles of a home that another node shows: named as that home's, with commands for its own shell."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from instep.cli.main import COMMANDS
from instep.model.standing import typed_with
from tests.support.services import ServiceNode, services
from tests.support.sync_site import Site
from tests.support.virtual_time import in_virtual_time


async def _trouble(home: ServiceNode, what: str) -> None:
    if what == "pause":
        await home.call("pause", fileset="data", reason="the disk is being replaced")
    else:
        shutil.rmtree(home.tree)


@pytest.mark.parametrize("what", ["root", "pause"])
@pytest.mark.parametrize("at_left", [True, False], ids=["left", "right"])
@in_virtual_time
async def test_a_trouble_of_a_home_is_told_as_its_own(tmp_path: Path, what: str, at_left: bool) -> None:
    """Goal: the root of a home is gone, or it is paused. The command, and what each node shows of the run later, name the
    home, and no command of theirs would be typed on another node: there it would make an empty directory."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        home = site.s1 if at_left else site.p1
        await _trouble(home, what)
        for asked in (site.s1, site.s2):
            error = await asked.refuses(
                "paused" if what == "pause" else "root_missing", "sync_run", profile="site"
            )
            shown = (await asked.call("sync_show", profile="site"))["last"]["error"]
            assert shown["reason"] == error.reason
            if asked is not home:
                _is_elsewhere(home, error.hint)
                _is_elsewhere(home, shown["hint"])
                assert "told_by" in error.facts
            assert shown["told_by"] == (None if at_left else "p1")


def _is_elsewhere(home: ServiceNode, hint: str | None) -> None:
    assert hint is not None and f"on {home.name}: " in hint
    assert typed_with(hint, "--dir /n", COMMANDS) == hint
