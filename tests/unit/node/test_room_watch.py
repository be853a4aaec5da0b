"""A line that waits for room tries again when there is room, and not each time that a look finds some."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

from instep.errors import ResourceError
from instep.node.following.room_watch import RoomWatch
from instep.node.lines.line_service import LineService
from instep.node.trees.space import Room

ENOUGH, LITTLE, GONE = Room(1, 100, 0), Room(100, 1, 0), ResourceError("the root is gone")
LOOKS: tuple[tuple[str, Room | Exception | None, int], ...] = (
    ("no_space", ENOUGH, 0), ("no_space", ENOUGH, 0), ("no_space", LITTLE, 0), ("no_space", GONE, 0), ("no_space", None, 0),
    ("no_space", ENOUGH, 1), ("no_space", ENOUGH, 1), ("no_space", LITTLE, 1), ("hook_failed", None, 1),
    ("no_space", ENOUGH, 1), ("no_space", LITTLE, 1), ("no_space", ENOUGH, 2),
)  # fmt: skip
"""How the line stands, what the look finds, and how often it was retried by then."""


async def test_room_that_comes_back_is_used_once() -> None:
    tries: list[int] = []
    found: Room | Exception | None = None

    async def run(call: Callable[[], Room | None]) -> Room | None:
        return call()

    def room() -> Room | None:
        if isinstance(found, Exception):
            raise found
        return found

    async def retry() -> None:
        tries.append(1)

    service = SimpleNamespace(
        standing=SimpleNamespace(code=None), machine=SimpleNamespace(phase=None),
        worker=SimpleNamespace(run=run), room_needed=room, retry=retry,
    )  # fmt: skip
    watch = RoomWatch(cast(LineService, service))
    for number, (code, look, wanted) in enumerate(LOOKS):
        service.standing.code, found = code, look
        await watch.look()
        assert len(tries) == wanted, number
