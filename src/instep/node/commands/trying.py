"""``test``: probes and golden answers, now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from instep.errors import RefusedError, UnavailableError
from instep.node.commands.parameters import service_of
from instep.node.control import Command, Params, Speaker
from instep.node.trying import try_balancer, try_node

if TYPE_CHECKING:
    from instep.node.daemon import Daemon

__all__ = ["commands"]

LIMIT_S = 120.0


def commands(daemon: Daemon) -> Mapping[str, Command]:
    return {"test": Trying(daemon).test}


class Trying:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def test(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        service = service_of(self._daemon, params)
        fileset = service.fileset
        is_through = bool(params.get("through_balancer"))
        if is_through and not service.golden.balancer_specs:
            raise RefusedError(
                f"{fileset.name} has no golden requests to ask through a balancer here",
                hint=f"in instep.toml: balancer in [filesets.{fileset.name}.golden], and requests",
                code="no_balancer",
            )
        limit_s = float(params.get("timeout_s") or LIMIT_S)
        asked = "this node's application"
        try:
            async with asyncio.timeout(limit_s):
                tests = await try_node(service)
                if is_through:
                    asked = "the balancer"
                    tests += await try_balancer(service)
        except TimeoutError:
            raise UnavailableError(
                f"{asked} had not answered everything within {limit_s:g} s",
                hint="give it longer with --timeout, or set a shorter timeout for each request",
                code="timed_out",
            ) from None
        if not tests:
            raise RefusedError(
                f"there is nothing to test for {fileset.name} here: it has neither a probe hook nor golden requests",
                hint=f"in instep.toml: probe in [filesets.{fileset.name}.hooks], or [filesets.{fileset.name}.golden]",
                code="nothing_to_test",
            )
        live = service.live
        return {
            "fileset": fileset.name,
            "ok": all(one["ok"] for one in tests),
            "generation": live.as_json() if live is not None else None,
            "tests": tests,
        }
