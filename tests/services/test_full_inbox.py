"""A line whose inbox is full: the other lines of the same stream go on, and its own catches up once it can."""

from __future__ import annotations

from pathlib import Path

from instep.errors import ResourceError
from instep.model.ids import LineId, fileset_name, node_name
from instep.node.following.follower import FollowService
from instep.node.runtime.driver import INBOX_MAX
from instep.store.memory import MemoryStore
from instep.tree.root.marker import create_marker
from tests.support.fleet import tree_of
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time, reached

DATA = LineId(fileset_name("data"), node_name("main"))


class PartlyFull(MemoryStore):
    """Saves nothing of one line while it is full."""

    is_full = False

    def save_line(self, line: LineId, state: bytes, *, durable: bool = True) -> None:
        if self.is_full and line == DATA:
            raise ResourceError("no space for this line", code="store_full")
        super().save_line(line, state, durable=durable)


def _add_other(node: ServiceNode, base: Path) -> Path:
    """A second fileset, written by main as well."""
    tree = base / node.name / "other"
    tree.mkdir(parents=True)
    create_marker(tree, fileset_name("other"), node.name)
    node.tail = f'[filesets.other]\npath = "{tree}"\nwriter = "main"\n' + (
        'settle = "20ms"\n' if node.name == "main" else ""
    )
    return tree


@in_virtual_time
async def test_a_line_that_is_stuck_with_a_full_inbox_stops_no_other_line(tmp_path: Path) -> None:
    """Goal: a partner cannot save the facts of one line for a long time, and events pile up: the second line of the
    same writer, over the same stream, is in step meanwhile, also after the link was lost; the first one follows."""
    async with services(tmp_path) as cluster:
        main, s1 = cluster.add("main"), cluster.add("s1")
        main.writes()
        s1.follows(main)
        cluster.link("main", "s1")
        store = s1.store = PartlyFull()
        others = [_add_other(node, tmp_path) for node in (main, s1)]
        for node in (main, s1):
            node.start()
        main.write({"file": "1"})
        await cluster.followed("s1")
        await cluster.in_step("s1")
        store.is_full = True
        main.write({"file": "2"})
        await main.publish()
        line = s1.node.peers.lines[DATA]

        assert isinstance(line, FollowService)

        async def is_stuck() -> bool:
            return line.driver.stuck is not None

        async def other_arrived() -> bool:
            return tree_of(others[1]) == tree_of(others[0])

        await reached(is_stuck, lambda: "data cannot be saved")
        for _ in range(INBOX_MAX + 1):
            line.asked_to("retry")
        assert not line.has_room
        for number in range(3):
            main.write({"file": f"more {number}"})
            await main.publish()
            (others[0] / "file").write_text(f"{number}")
            await main.call("publish", fileset="other")
            await reached(other_arrived, lambda: f"other is in step: {tree_of(others[1])}")
        cluster.cut("main", "s1")
        (others[0] / "file").write_text("after the cut")
        await main.call("publish", fileset="other")
        cluster.heal("main", "s1")
        await reached(other_arrived, lambda: f"other is in step: {tree_of(others[1])}")
        assert not line.has_room
        store.is_full = False
        await cluster.in_step("s1")
