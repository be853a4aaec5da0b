"""``test``: probes and golden answers, now, here and on partners."""

from __future__ import annotations

import asyncio

from instep.api import verifying as api
from instep.api.parts import generation
from instep.errors import InstepError, RefusedError, UnavailableError
from instep.model.counts import lasting
from instep.model.ids import NodeName, node_name
from instep.net.messages.messages import TestRow
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.outcomes import writer_of
from instep.node.commands.targets import direct_followers, service_of, session_of
from instep.node.lines.line_service import LineService
from instep.node.lines.self_test import test_document, try_balancer, unequal

LIMIT_S = 120.0


class Trying(CommandHandlers):
    async def test(self, asked: api.TestCommand, speaker: Speaker) -> api.TestsDocument:
        service = service_of(self._node, asked.fileset)
        fileset, me = service.fileset, self._node.runtime.name
        if asked.through_balancer and not service.golden.balancer_specs:
            raise RefusedError(
                f"{fileset.name} has no golden requests to ask through a balancer here",
                hint=f"in instep.toml: balancer in [filesets.{fileset.name}.golden], and requests",
                code="no_balancer",
            )
        limit_s = asked.timeout_s or LIMIT_S
        found: dict[str, tuple[TestRow, ...]] = {}
        try:
            async with asyncio.timeout(limit_s):
                names = self._names(asked)
                await asyncio.gather(*(self._on(name, service, limit_s, found) for name in names))
                through = await try_balancer(service.golden) if asked.through_balancer else ()
        except TimeoutError:
            raise UnavailableError(
                f"not everything was answered within {lasting(limit_s * 1000)}; answers came from: "
                f"{', '.join(found) or 'no node'}",
                hint="give it longer with --timeout, or set a shorter timeout for each request",
                code="timed_out",
            ) from None
        tests = [test_document(one, node) for node in sorted(found) for one in found[node]]
        tests += [test_document(one, me) for one in through]
        tests += [test_document(one, node) for node, one in unequal(found)]
        if not tests:
            raise RefusedError(
                f"there is nothing to test for {fileset.name}: neither a probe hook nor golden requests",
                hint=f"in instep.toml: probe in [filesets.{fileset.name}.hooks], or [filesets.{fileset.name}.golden]",
                code="nothing_to_test",
            )
        return api.TestsDocument(
            fileset=fileset.name,
            ok=all(one.ok for one in tests),
            generation=generation(service.live),
            nodes=tuple(sorted(found)),
            tests=tuple(tests),
        )

    def _names(self, asked: api.TestCommand) -> list[NodeName]:
        """This node, or the named ones, or with ``fleet`` all nodes that have the line from here."""
        me = self._node.runtime.name
        named = [node_name(name) for name in asked.nodes]
        if not asked.fleet and all(name == me for name in named):
            return [me]
        writer = writer_of(self._node, asked.fileset)
        if not asked.fleet:
            return named
        return [me, *direct_followers(self._node, writer)]

    async def _on(
        self,
        name: NodeName,
        service: LineService,
        limit_s: float,
        found: dict[str, tuple[TestRow, ...]],
    ) -> None:
        """The results of the tests of one node; a node that cannot be asked is a test that failed."""
        if name == self._node.runtime.name:
            found[name] = await service.test()
            return
        try:
            found[name] = (await session_of(self._node, name).test(service.line, limit_s)).rows
        except InstepError as error:
            found[name] = (TestRow("node", "node", error.reason[:1000]),)
