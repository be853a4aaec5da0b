"""Balancers: rendered for looking at, and kept where they are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from instep.api import balancers as api
from instep.errors import RefusedError, UsageError
from instep.fleet.balancers.file import Program
from instep.fleet.balancers.plan import ServerPlan
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker


class BalancerCommands(CommandHandlers):
    @contextmanager
    def _as_the_file_says(self) -> Iterator[None]:
        """No balancer in the configuration that runs may be one in the file that was refused."""
        try:
            yield
        except RefusedError as error:
            problem = self._node.config_problem
            if problem is None or error.error_code != "no_balancer":
                raise
            raise RefusedError(
                f"{error.reason}: an earlier instep.toml runs, for the present one is refused: {problem.reason}",
                hint="instep config check",
                code="no_balancer",
            ) from error

    async def render(self, asked: api.BalancerRenderCommand, speaker: Speaker) -> api.BalancerRenderDocument:
        """The text, without touching anything."""
        program = _program(asked.kind)
        with self._as_the_file_says():
            made = self._context.balancers.render_for(
                program, asked.names, is_whole=asked.only != "backend", before=asked.before
            )
        plans = (
            api.BalancerDocument(plan.name, tuple(_server(server) for server in plan.servers))
            for plan in made.plans
        )
        only = None if made.is_whole else "backend"
        return api.BalancerRenderDocument(program.value, only, tuple(plans), made.text, tuple(made.warnings))

    async def reload(self, asked: api.BalancerReloadCommand, speaker: Speaker) -> api.BalancerReloadDocument:
        """Render, check, put in place, reload."""
        with self._as_the_file_says():
            files = await self._context.balancers.reload(asked.names, may_replace=asked.replace)
        return api.BalancerReloadDocument(any(each.changed for each in files), tuple(files))


def _program(raw: str) -> Program:
    try:
        return Program(raw)
    except ValueError as error:
        known = ", ".join(program.value for program in Program)
        raise UsageError(f"{raw!r} is not one of {known}", code="unknown_kind") from error


def _server(server: ServerPlan) -> api.ServerDocument:
    return api.ServerDocument(
        node=server.node,
        at={kind.value: str(address) for kind, address in server.at.items()},
        writer=server.is_writer,
        health=str(server.health) if server.health is not None else None,
        agent=str(server.agent) if server.agent is not None else None,
        out=server.is_out,
    )
