"""Balancers: rendered for looking at, and kept where they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from instep.errors import UsageError
from instep.fleet.balancer_file import Program
from instep.fleet.balancer_plan import ServerPlan
from instep.node.control import Command, Params, Speaker

if TYPE_CHECKING:
    from instep.node.daemon import Daemon

__all__ = ["commands"]


def commands(daemon: Daemon) -> Mapping[str, Command]:
    balancers = BalancerCommands(daemon)
    return {"balancer_render": balancers.render, "balancer_reload": balancers.reload}


class BalancerCommands:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def render(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        """The text, without touching anything."""
        program = _program(params.get("kind"))
        before = params.get("before")
        made = self._daemon.balancers.render_for(
            program,
            _names(params),
            is_whole=params.get("only") != "backend",
            before=str(before) if before is not None else None,
        )
        return {
            "kind": program.value,
            "only": None if made.is_whole else "backend",
            "balancers": [
                {"name": plan.name, "nodes": [_server(server) for server in plan.servers]}
                for plan in made.plans
            ],
            "text": made.text,
            "warnings": list(made.warnings),
        }

    async def reload(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        """Render, check, put in place, reload."""
        files = await self._daemon.balancers.reload(_names(params), may_replace=bool(params.get("replace")))
        return {"changed": any(each["changed"] for each in files), "files": files}


def _program(raw: object) -> Program:
    try:
        return Program(raw)
    except ValueError as error:
        known = ", ".join(program.value for program in Program)
        raise UsageError(f"{raw!r} is not one of {known}", code="unknown_kind") from error


def _names(params: Params) -> list[str]:
    names = params.get("names") or []
    return [str(name) for name in names] if isinstance(names, list) else [str(names)]


def _server(server: ServerPlan) -> dict[str, Any]:
    return {
        "node": server.node,
        "at": {kind.value: str(address) for kind, address in server.at.items()},
        "writer": server.is_writer,
        "health": str(server.health) if server.health is not None else None,
        "agent": str(server.agent) if server.agent is not None else None,
        "out": server.is_out,
    }
