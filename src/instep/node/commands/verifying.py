"""``verify``: attested roots of the fleet, and each tree against its manifest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from instep.errors import InstepError
from instep.model.manifest import totals
from instep.model.paths import path_fields
from instep.net import messages as m
from instep.net.faults import error_of_reply
from instep.node.commands.parameters import getter, service_of
from instep.node.control import Command, Params, Speaker
from instep.node.snapshot import reports_of

if TYPE_CHECKING:
    from instep.node.daemon import Daemon

__all__ = ["commands"]

VERIFY_S = 86_400.0


def commands(daemon: Daemon) -> Mapping[str, Command]:
    return {"verify": Verifying(daemon).verify}


class Verifying:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def verify(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        service = service_of(self._daemon, params)
        is_deep = bool(params.get("deep"))
        nodes: list[dict[str, Any]] = []
        jobs: dict[str, asyncio.Task[m.VerifyReply]] = {}
        loop = asyncio.get_running_loop()
        jobs[self._daemon.runtime.name] = loop.create_task(service.verify(is_deep=is_deep))
        if params.get("fleet"):
            for name, session in list(self._daemon.peers.sessions.items()):
                if (
                    service.line in session.accepted
                    and self._daemon.peers.access.why_not(name, service) is None
                ):
                    jobs[name] = loop.create_task(
                        session.verify(service.line, is_deep=is_deep, within_s=VERIFY_S)
                    )
        store, live = self._daemon.runtime.store, service.live
        total = totals(live.root, getter(store)).size_bytes if live is not None else 0
        try:
            done = 0
            while done < len(jobs):
                if is_deep and not jobs[self._daemon.runtime.name].done():
                    await speaker.progress("reading every byte", service.verified_bytes(), total, "bytes")
                else:
                    await speaker.progress("verifying", done, len(jobs), "nodes")
                await asyncio.wait(
                    [job for job in jobs.values() if not job.done()],
                    timeout=1.0,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                done = sum(job.done() for job in jobs.values())
        finally:
            for job in jobs.values():
                job.cancel()
        nodes += [self._verified(name, job) for name, job in jobs.items()]
        if params.get("fleet"):
            nodes += [
                {"name": partner, "root": None, "differs": [], "reason": f"{partner} is not connected"}
                for partner, report in reports_of(self._daemon.runtime.store, service.line).items()
                if partner not in jobs
                and not report.via
                and partner in self._daemon.runtime.settings.partners
            ]
        roots = {node["root"] for node in nodes}
        identical = len(roots) == 1 and None not in roots and not any(node["differs"] for node in nodes)
        return {"fileset": service.fileset.name, "deep": is_deep, "identical": identical, "nodes": nodes}

    def _verified(self, name: str, job: asyncio.Task[m.VerifyReply]) -> dict[str, Any]:
        try:
            reply = job.result()
            if reply.error is not None:
                raise error_of_reply(reply.error, name)
        except InstepError as error:
            return {
                "name": name,
                "root": None,
                "differs": [],
                "reason": error.reason,
                "code": error.error_code,
            }
        if reply.live is None:
            return {
                "name": name,
                "root": None,
                "differs": [],
                "reason": "nothing is live yet",
                "code": "no_live",
            }
        return {
            "name": name,
            "root": reply.attested_root.hex() or None,
            "generation": reply.live.number,
            "differing": reply.differing,
            "differs": [{**path_fields(d.path), "why": d.why} for d in reply.differs],
        }
