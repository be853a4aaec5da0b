"""The work of a sync run, counted: bytes between the homes, generations, and pages that a plan reads."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from instep.core.sync.reconcile import reconcile
from instep.core.sync.table import Direction, KindRules
from instep.model.ids import Digest, NodeName
from instep.model.manifest import manifest
from instep.model.manifest.entry import Entry, Kind
from tests.support.services import services
from tests.support.sync_site import Site
from tests.support.trees import in_order
from tests.support.virtual_time import in_virtual_time

FILES, LEFT, RIGHT, BOTH = 600, 30, 18, 4
SIZE = 20_000
OVERHEAD = 1.15
FREE_BYTES = 4_096
"""A run that finds nothing to do may send so much: heads, marks, questions."""


def _texts(seed: int, names: range) -> dict[str, str]:
    """Contents that no compression makes smaller by much."""
    rng = random.Random(seed)
    return {f"many/f{number}": rng.randbytes(SIZE // 2).hex() for number in names}


@in_virtual_time
async def test_a_run_sends_the_changes_and_little_else_and_one_without_changes_nearly_nothing(
    tmp_path: Path,
) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        s1, p1 = site.s1, site.p1
        await site.begin()
        s1.write({f"many/f{number}": str(number) for number in range(FILES)})
        await site.run()
        await site.run()
        homes = frozenset((NodeName("s1"), NodeName("p1")))
        heads = await s1.head(), await p1.head()
        sent: Counter[str] = Counter()
        before = cluster.net.sent[homes]
        assert (await site.run())["changes_total"] == 0
        sent["nothing"] = cluster.net.sent[homes] - before
        assert (await s1.head(), await p1.head()) == heads
        s1.write(_texts(1, range(LEFT + BOTH)))
        p1.write(_texts(2, range(LEFT, LEFT + BOTH + RIGHT)))
        before = cluster.net.sent[homes]
        ran = await site.run()
        sent["changes"] = cluster.net.sent[homes] - before
        assert len(ran["listed"]) == BOTH
        assert ((await s1.head()) - heads[0], (await p1.head()) - heads[1]) == (2, 2)
        assert sent["nothing"] <= FREE_BYTES, sent
        assert sent["changes"] <= OVERHEAD * SIZE * (LEFT + RIGHT + 2 * BOTH), sent


def test_a_plan_reads_each_page_near_a_change_about_once() -> None:
    """Goal: of 50,000 files, of which 500 changed on one side, 300 on the other and 20 on both, no page is read more than
    three times, however often its tree is walked."""
    files = 50_000
    tree = {path: _file(path, 0) for path in (b"f%05d" % number for number in range(files))}
    left = tree | {path: _file(path, 1) for path in (b"f%05d" % (number * 7) for number in range(520))}
    right = tree | {path: _file(path, 2) for path in (b"f%05d" % (number * 7) for number in range(500, 820))}
    pages: dict[Digest, bytes] = {}
    base, ours, theirs = (manifest.build(in_order(each), pages.__setitem__) for each in (tree, left, right))
    read: Counter[Digest] = Counter()

    def get(digest: Digest) -> bytes:
        read[digest] += 1
        return pages[digest]

    plan = reconcile(base, ours, theirs, lambda _: KindRules(Direction.BOTH), get)
    assert (len(plan.listed), len(plan.steps)) == (20, 820 + 20)
    assert len(read) < len(pages) / 3, "pages without a change were read"
    assert sum(read.values()) <= 3 * len(read)


def _file(path: bytes, text: int) -> Entry:
    return Entry(path, Kind.FILE, 0o644, 500, text, Digest(bytes([text]) * 32), 1_000)
