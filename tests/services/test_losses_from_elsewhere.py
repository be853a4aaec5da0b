"""Removals that a home makes on behalf of others are judged as its own are, before anything of them is laid."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services.test_changes_at_home import kinds
from tests.support.offered import Offerer
from tests.support.services import ServiceNode, Services, services
from tests.support.sync_site import Site, files
from tests.support.virtual_time import in_virtual_time

TWENTY = [f"sub/f{number:02}" for number in range(20)]
MANY = [f"m/{number}" for number in range(300)]


async def _begun(cluster: Services, *keys: str) -> tuple[ServiceNode, Offerer]:
    main = cluster.add("main")
    main.writes('offers_from = ["s1"]', *keys)
    main.start()
    main.write(dict.fromkeys((*TWENTY, *(f"keep/{number}" for number in range(100))), "old"))
    await main.publish()
    s1 = Offerer(main)
    s1.see()
    return main, s1


@in_virtual_time
@pytest.mark.parametrize("publish", ["auto", "manual"])
async def test_a_top_directory_is_not_emptied_in_two_sets(tmp_path: Path, publish: str) -> None:
    """Goal: what one set removed counts for the next one, whether it is published by now or not. A refused set changes
    nothing, not even what it adds, and the home goes on publishing."""
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster, f'publish = "{publish}"')
        assert set(kinds(await s1.offer({TWENTY[0]: None})).values()) == {"applied"}
        answer = await s1.offer({**dict.fromkeys(TWENTY[1:]), "new": "added"})
        assert set(kinds(answer).values()) == {"max_deletions"}
        reason = answer.outcomes[0].reason
        assert "all 20 paths of sub/ would be removed" in reason and "on main" in reason
        assert {path.name for path in (main.tree / "sub").iterdir()} == {path[4:] for path in TWENTY[1:]}
        assert not (main.tree / "new").exists()
        answer = await s1.offer({"keep/0": "edited", TWENTY[1]: None})
        assert set(kinds(answer).values()) == {"applied"}
        await main.publish()
        await main.stands("in_step")


@in_virtual_time
async def test_a_move_in_two_sets_is_no_loss(tmp_path: Path) -> None:
    """Goal: files that an earlier set brought under other names are found again when the next one is judged."""
    async with services(tmp_path) as cluster:
        _, s1 = await _begun(cluster, 'publish = "manual"')
        moved = {f"moved{number:02}": "old" for number in range(10)}
        assert set(kinds(await s1.offer({**dict.fromkeys(TWENTY[:10]), **moved})).values()) == {"applied"}
        moved = {f"moved{number:02}": "old" for number in range(10, 20)}
        assert set(kinds(await s1.offer({**dict.fromkeys(TWENTY[10:]), **moved})).values()) == {"applied"}


@in_virtual_time
@pytest.mark.parametrize("from_left", [True, False], ids=["up", "down"])
async def test_a_run_removes_a_mass_at_either_side_only_when_that_is_meant(
    tmp_path: Path, from_left: bool
) -> None:
    """Goal: removals that were accepted on one side are asked about again on the other: before anything is laid, with
    both values and the command that goes on. With it they are made and published, and the next run goes as always."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        here, there = (site.s1, site.p1) if from_left else (site.p1, site.s1)
        site.s1.write(dict.fromkeys(MANY, "1"))
        await site.run()
        before = files(there.tree)
        for path in MANY:
            (here.tree / path).unlink()
        here.write({"else": "1"})
        await here.publish(accept_deletions=True)
        for _ in range(2):
            refused = await site.run()
            assert {each["code"] for each in refused["undone"]} == {"max_deletions"}
            assert "299 of 30" in refused["undone"][0]["reason"], refused["undone"][0]
            assert files(there.tree) == before
            await there.stands("in_step")
        ran = await site.run(accept_deletions=True)
        assert (ran["undone"], site.same().get("else")) == ([], "1")
        assert MANY[0] not in site.same()
        await there.stands("in_step")
        (here.tree / "a").unlink()
        assert (await site.run())["undone"] == [] and "a" not in site.same()


@in_virtual_time
async def test_consent_is_for_the_paths_of_a_set_and_for_no_other_loss(tmp_path: Path) -> None:
    """Goal: files that vanish at the home itself meanwhile are not published as removed along with accepted ones."""
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster)
        for number in range(100):
            (main.tree / f"keep/{number}").unlink()
        before = await main.head()
        answer = await s1.submit(s1.changes(dict.fromkeys(TWENTY)), accepts_deletions=True)
        assert set(kinds(answer).values()) == {"applied"}
        assert answer.head is None and "100 of 102 paths would be removed" in answer.reason
        assert await main.head() == before
        await main.stands("blocked", code="max_deletions")
