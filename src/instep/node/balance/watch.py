"""Asks nodes how they are on behalf of a balancer that cannot: the free nginx.

Each question says whether the balancer has acted on the last answer (``acts``), so that a drain waits until nginx was
really reloaded, and not only until this watch got the answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from instep.fleet.balancers.file import Program
from instep.fleet.balancers.plan import BalancerPlan, ServerPlan
from instep.model.address import Address
from instep.model.ids import NodeName
from instep.node.runtime.runtime import Runtime

EVERY_S = 1.0
ANSWER_S = 3.0
FAILURES = 2
"""Questions in a row without an answer after which a node counts as out."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One question to one node."""

    file: Path
    balancer: str
    node: NodeName
    health: Address
    question: str
    application: tuple[Address, str] | None = None
    """Where the application itself is asked, and what."""


class Watch:
    """Asks every second, until it is closed. A change wakes all tasks that wait for the runtime's changes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._tasks: dict[_Asked, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._out: set[_Asked] = set()
        self._heard: set[_Asked] = set()
        self._applied: dict[Path, frozenset[tuple[str, str]]] = {}
        """The drained nodes in the file that the balancer was ordered to read last: (balancer, node)."""

    def follow(self, files: Sequence[tuple[Program, Path, Sequence[BalancerPlan]]]) -> None:
        """Level: ask the nodes that these plans name."""
        wanted = {
            _Asked(
                path, plan.name, NodeName(server.node), server.health, plan.ready, _application(plan, server)
            )
            for program, path, plans in files
            if program is Program.NGINX
            for plan in plans
            for server in plan.servers
            if server.health is not None
        }
        for asked in [asked for asked in self._tasks if asked not in wanted]:
            task = self._tasks.pop(asked)
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            self._out.discard(asked)
            self._heard.discard(asked)
        for asked in sorted(wanted - set(self._tasks), key=repr):
            self._tasks[asked] = asyncio.get_running_loop().create_task(self._ask(asked))

    def out(self, balancer: str) -> Collection[NodeName]:
        """Nodes that are not ready."""
        return {asked.node for asked in self._out if asked.balancer == balancer}

    def is_settled(self, path: Path) -> bool:
        """Whether every node was heard, or missed, at least once."""
        return all(asked in self._heard for asked in self._tasks if asked.file == path)

    def applied(self, path: Path, plans: Sequence[BalancerPlan]) -> None:
        """The balancer reads this now."""
        self._applied[path] = frozenset(
            (plan.name, server.node) for plan in plans for server in plan.servers if server.is_out
        )

    async def close(self) -> None:
        self.follow(())
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _ask(self, asked: _Asked) -> None:
        failures = 0
        while True:
            is_out_there = (asked.balancer, asked.node) in self._applied.get(asked.file, frozenset())
            status = await self._status(asked, "out" if is_out_there else "in")
            failures = failures + 1 if status is None else 0
            is_out = status != 200 if status is not None else asked in self._out or failures >= FAILURES
            is_first = asked not in self._heard and (status is not None or is_out)
            if is_first:
                self._heard.add(asked)
            was_out = asked in self._out
            if is_out != was_out:
                (self._out.add if is_out else self._out.discard)(asked)
                log.info("balancer %s: %s is %s", asked.balancer, asked.node, "out" if is_out else "in")
            if is_first or is_out != was_out:
                self._runtime.tell()
            await asyncio.sleep(EVERY_S)

    async def _status(self, asked: _Asked, acts: str) -> int | None:
        """200 when the node is ready and its application answers well; None when one of them does not answer."""
        status = await status_of(asked.health, f"{asked.question}&acts={acts}")
        if status == 200 and asked.application is not None:
            told = await status_of(*asked.application)
            return told if told is None or not 200 <= told < 400 else 200
        return status


def _application(plan: BalancerPlan, server: ServerPlan) -> tuple[Address, str] | None:
    first = plan.services[0]
    if plan.health_path is None or first.is_passed_through or first.kind not in server.at:
        return None
    return server.at[first.kind], plan.health_path


async def status_of(at: Address, path: str) -> int | None:
    """The status of the answer to a GET; None when no server answers in HTTP within ``ANSWER_S``."""
    request = f"GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(at.host, at.port, limit=8_192)
            try:
                writer.write(request.encode())
                await writer.drain()
                words = (await reader.readline()).split(None, 2)
            finally:
                writer.close()
        return int(words[1]) if len(words) > 1 else None
    except (OSError, TimeoutError, ValueError):
        return None
