"""``test``: probes and golden answers, now, here and on partners."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from instep.errors import InstepError, RefusedError, UnavailableError
from instep.model.ids import NodeName, node_name
from instep.net.messages import TestRow
from instep.node.commands.outcomes import writer_of
from instep.node.commands.parameters import service_of
from instep.node.control import Command, Params, Speaker
from instep.node.snapshot import reports_of
from instep.node.trying import as_json, try_balancer, try_node, unequal
from instep.node.writer import WriterService

if TYPE_CHECKING:
    from instep.node.daemon import Daemon
    from instep.node.follower import FollowService

__all__ = ["commands"]

LIMIT_S = 120.0


def commands(daemon: Daemon) -> Mapping[str, Command]:
    return {"test": Trying(daemon).test}


class Trying:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def test(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        service = service_of(self._daemon, params)
        fileset, me = service.fileset, self._daemon.runtime.name
        is_through = bool(params.get("through_balancer"))
        if is_through and not service.golden.balancer_specs:
            raise RefusedError(
                f"{fileset.name} has no golden requests to ask through a balancer here",
                hint=f"in instep.toml: balancer in [filesets.{fileset.name}.golden], and requests",
                code="no_balancer",
            )
        limit_s = float(params.get("timeout_s") or LIMIT_S)
        found: dict[str, tuple[TestRow, ...]] = {}
        try:
            async with asyncio.timeout(limit_s):
                asked = [
                    self._on(name, service, params, limit_s, found) for name in self._names(service, params)
                ]
                await asyncio.gather(*asked)
                through = await try_balancer(service) if is_through else ()
        except TimeoutError:
            raise UnavailableError(
                f"not everything was answered within {limit_s:g} s; answers came from: {', '.join(found) or 'nobody'}",
                hint="give it longer with --timeout, or set a shorter timeout for each request",
                code="timed_out",
            ) from None
        tests = [as_json(one, node) for node in sorted(found) for one in found[node]]
        tests += [as_json(one, me) for one in through]
        tests += [as_json(one, node) for node, one in unequal(found)]
        if not tests:
            raise RefusedError(
                f"there is nothing to test for {fileset.name}: neither a probe hook nor golden requests",
                hint=f"in instep.toml: probe in [filesets.{fileset.name}.hooks], or [filesets.{fileset.name}.golden]",
                code="nothing_to_test",
            )
        live = service.live
        return {
            "fileset": fileset.name,
            "ok": all(one["ok"] for one in tests),
            "generation": live.as_json() if live is not None else None,
            "nodes": sorted(found),
            "tests": tests,
        }

    def _names(self, service: WriterService | FollowService, params: Params) -> list[NodeName]:
        """This node, or those that were named, or with ``fleet`` all that have the line from here."""
        me = self._daemon.runtime.name
        named = [node_name(str(name)) for name in params.get("nodes") or ()]
        if not params.get("fleet") and all(name == me for name in named):
            return [me]
        writer = writer_of(self._daemon, params)
        if not params.get("fleet"):
            return named
        peers = self._daemon.peers
        reported = [
            name
            for name, report in reports_of(self._daemon.runtime.store, writer.line).items()
            if not report.via
        ]
        accepted = [name for name, session in peers.sessions.items() if writer.line in session.accepted]
        partners = {*reported, *accepted}
        return [me, *sorted(name for name in partners if peers.access.why_not(name, writer) is None)]

    async def _on(
        self,
        name: NodeName,
        service: WriterService | FollowService,
        params: Params,
        limit_s: float,
        found: dict[str, tuple[TestRow, ...]],
    ) -> None:
        """What the tests of one node come to; one that cannot be asked is a test that failed."""
        if name == self._daemon.runtime.name:
            found[name] = await try_node(service)
            return
        session = self._daemon.peers.sessions.get(name)
        try:
            if session is None:
                raise UnavailableError(f"{name} is not connected", code="not_connected")
            found[name] = (await session.test(service.line, limit_s)).rows
        except InstepError as error:
            found[name] = (TestRow("node", "node", error.reason[:1000]),)
