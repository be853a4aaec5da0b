"""Looking: status, log, diff, events, verify, explain. Nothing here changes anything."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from instep.errors import InstepError, UsageError
from instep.model.entry import same_but_for_times_of_directories
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.manifest import diff, lookup
from instep.model.paths import path_fields, shown
from instep.net import messages as m
from instep.node.commands.parameters import getter, old_path_of, service_of
from instep.node.control import Command, Params, Speaker
from instep.node.draining import OPERATOR, is_asked
from instep.node.driver import wall_ms
from instep.node.follower import FollowService
from instep.node.held_view import explained, held_of_line
from instep.node.rollout_view import status_document
from instep.node.snapshot import (
    fileset_document,
    generation_document,
    line_document,
    moment,
    partner_document,
    pick_fileset,
    reports_of,
)
from instep.node.whereabouts import Whereabouts
from instep.node.writer import WriterService

if TYPE_CHECKING:
    from instep.node.daemon import Daemon

__all__ = ["commands"]

WATCH_S = 1.0
VERIFY_S = 86_400.0
DIFF_MAX = 100_000
LOG_MAX = 1_000


def commands(daemon: Daemon) -> Mapping[str, Command]:
    looking = Looking(daemon)
    return {
        "ping": looking.ping,
        "stop": looking.stop,
        "status": looking.status,
        "log": looking.log,
        "diff": looking.diff,
        "events": looking.events,
        "explain": looking.explain,
    }


class Looking:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def ping(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        return {"node": self._daemon.runtime.name, "pid": os.getpid()}

    async def stop(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, self._daemon.stopping.set)
        return {"node": self._daemon.runtime.name, "stopping": True}

    # Status -------------------------------------------------------------------------------------------------

    async def status(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        if not params.get("watch"):
            return self.document(params)
        last: Mapping[str, Any] | None = None
        while not self._daemon.stopping.is_set():
            changed = self._daemon.runtime.changed
            document = self.document(params)
            if document != last:
                await speaker.item(document)
                last = document
            try:
                async with asyncio.timeout(WATCH_S):
                    await changed.wait()
            except TimeoutError:
                continue
        return self.document(params)

    def document(self, params: Params) -> dict[str, Any]:
        daemon = self._daemon
        settings = daemon.runtime.settings
        chosen = (
            [pick_fileset(settings, str(params["fileset"]))]
            if params.get("fileset")
            else list(settings.filesets.values())
        )
        config: dict[str, Any] = {"state": "current", "running": settings.fingerprint}
        if daemon.config_problem is not None:
            error = daemon.config_problem
            config = {
                "state": "refused",
                "running": settings.fingerprint,
                "reason": error.reason,
                "problems": error.facts.get("problems", []),
            }
        document: dict[str, Any] = {
            "node": settings.name,
            "daemon": "running",
            "config": config,
            "filesets": [self._fileset(daemon.services[fileset.name]) for fileset in chosen],
            "links": [self._link(uplink) for uplink in daemon.peers.uplinks.values()],
            "offers": self._open_offers(),
            "warnings": self._warnings(),
            "next": [],
        }
        return document

    def _link(self, uplink: Any) -> dict[str, Any]:
        error: InstepError | None = uplink.error
        return {
            "name": uplink.name,
            "address": uplink.address,
            "up": uplink.is_up,
            "reason": error.reason if error is not None and not uplink.is_up else None,
            "code": error.error_code if error is not None and not uplink.is_up else None,
            "next": [error.hint] if error is not None and error.hint and not uplink.is_up else [],
        }

    def _open_offers(self) -> list[dict[str, Any]]:
        followed = self._daemon.runtime.settings.filesets
        return [
            {"name": line.fileset, "writer": offer.writer, "from": uplink.name, "class": offer.fileset_class,
             "mode": offer.mode, "entries": offer.entries, "bytes": offer.size_bytes}
            for uplink in self._daemon.peers.uplinks.values()
            for line, offer in uplink.offers.items()
            if line.fileset not in followed
        ]  # fmt: skip

    def _warnings(self) -> list[str]:
        pki = self._daemon.pki
        warnings = list(self._daemon.runtime.settings.warnings)
        if self._daemon.runtime.state_note is not None:
            warnings.append(self._daemon.runtime.state_note)
        warnings += self._daemon.listeners.troubles.values()
        warnings += self._daemon.balancers.troubles.values()
        for drain in self._daemon.runtime.draining.reasons():
            why = f" ({drain.reason})" if drain.reason else ""
            until = f", until {moment(drain.until_ms)}" if drain.until_ms is not None else ""
            by = "" if drain.key == OPERATOR else f", by {drain.key}"
            by_hand = by + (": instep node undrain" if is_asked(drain.key) else "")
            warnings.append(f"this node is drained since {moment(drain.since_ms)}{why}{until}{by_hand}")
        if pki.is_ca and pki.backed_up_at_ms() is None:
            warnings.append("the cluster's CA key has no backup: instep pki backup --to FILE")
        return warnings

    def _fileset(self, service: WriterService | FollowService) -> dict[str, Any]:
        runtime = self._daemon.runtime
        head, live = service.head, service.live
        partners: list[dict[str, Any]] = []
        now = wall_ms()
        if isinstance(service, WriterService) or self._has_partners_of(service):
            partners = self._partners(service, now)
        line = line_document(
            runtime.store, service.line, service.writer, head, live, service.standing, partners
        )
        if isinstance(service, FollowService) and service.machine.phase is not None:
            line["doing"] = service.machine.phase
        if isinstance(service, WriterService):
            rollout = service.rollout
            shown_rollout = status_document(runtime.store, service.line, rollout.facts, rollout.view)
            if shown_rollout is not None:
                line["rollout"] = shown_rollout
            line.update(held_of_line(service.fileset, service.facts))
        document = fileset_document(service.fileset, service.known_definition(), [line])
        if service.fileset.without:
            document["without"] = sorted(service.fileset.without)
        return document

    def _has_partners_of(self, service: FollowService) -> bool:
        return bool(runtime_reports(self._daemon, service))

    def _partners(self, service: WriterService | FollowService, now: int) -> list[dict[str, Any]]:
        daemon = self._daemon
        reports = reports_of(daemon.runtime.store, service.line)
        names: set[NodeName] = {name for name, report in reports.items() if report.via}
        for name in daemon.runtime.settings.partners:
            session = daemon.peers.sessions.get(name)
            has_accepted = name in reports or (session is not None and service.line in session.accepted)
            if has_accepted and daemon.peers.access.why_not(name, service) is None:
                names.add(name)
        rows: list[dict[str, Any]] = []
        for name in sorted(names):
            report = reports.get(name)
            way = report.via if report is not None and report.via else name
            rows.append(
                partner_document(
                    daemon.runtime.store,
                    name,
                    report,
                    service.head,
                    is_connected=NodeName(way) in daemon.peers.sessions,
                    since_ms=daemon.started_ms,
                    poll_ms=daemon.runtime.settings.poll_ms,
                    now_ms=now,
                )
            )
        return rows

    # Log, diff, events ----------------------------------------------------------------------------------------

    async def log(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        service = service_of(self._daemon, params)
        runtime = self._daemon.runtime
        known = runtime.store.generations(service.line, LOG_MAX)
        refs = [signed.ref() for signed in known]
        reports = reports_of(runtime.store, service.line)
        lives = {name: report.live for name, report in reports.items() if report.live is not None}
        if isinstance(service, WriterService):
            found = await service.worker.run(service.root_now)
        else:
            found = service.live.root if service.live is not None else None

        def get(digest: Digest) -> bytes:  # by whichever thread asks
            return getter(runtime.store)(digest)

        look = Whereabouts(service.line, found, lives, get)
        lenders = self._daemon.peers.lenders(service.line) if isinstance(service, WriterService) else ()
        await asyncio.to_thread(self._look_here, service, look, refs)
        await look.ask(refs, lenders)
        where = await asyncio.to_thread(lambda: [look.where(ref) for ref in refs])
        return {
            "fileset": service.fileset.name,
            "generations": [
                {
                    **generation_document(signed),
                    "contents": list(place.places),
                    "together": list(place.parts),
                    "restorable": bool(place.places or place.parts),
                }
                for signed, place in zip(known, where, strict=True)
            ],
        }

    @staticmethod
    def _look_here(service: WriterService | FollowService, look: Whereabouts, refs: list[HeadRef]) -> None:
        contents = service.lending.made()
        try:
            look.look_here(refs, contents)
        finally:
            contents.close()

    def _ref(self, service: WriterService | FollowService, number: object) -> HeadRef:
        for signed in self._daemon.runtime.store.generations(service.line, 10_000):
            ref = signed.ref()
            if ref.number == int(str(number)):
                return ref
        raise UsageError(
            f"{service.fileset.name} has no generation {number} here",
            hint=f"instep log {service.fileset.name}",
            code="no_generation",
            asked=str(number),
        )

    async def diff(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        service = service_of(self._daemon, params)
        if params.get("a") is None:
            changes = await service.worker.run(service.changes_now, DIFF_MAX)
            held: dict[str, Any] = {}
            if isinstance(service, WriterService):
                held = held_of_line(service.fileset, service.facts)
            return {"fileset": service.fileset.name, "changes": changes, **held}
        old = self._ref(service, params["a"])
        new = self._ref(service, params["b"]) if params.get("b") is not None else service.head
        assert new is not None
        found = await service.worker.run(self._between, old, new)
        return {"fileset": service.fileset.name, "a": old.number, "b": new.number, "changes": found}

    def _between(self, old: HeadRef, new: HeadRef) -> list[dict[str, Any]]:
        from instep.tree.plan import find_moves

        get = getter(self._daemon.runtime.store)
        moves = find_moves(diff(old.root, new.root, get)).directories
        moved_from = {source: target for target, source in moves.items()}
        changes: list[dict[str, Any]] = []
        for change in diff(old.root, new.root, get):
            if len(changes) >= DIFF_MAX:
                break
            path = change.path
            if path in moves:
                changes.append({**path_fields(path), "change": "renamed", "from": shown(moves[path])})
                continue
            if _is_within(path, moves) or path in moved_from or _is_within(path, moved_from):
                continue
            if change.old is None:
                changes.append({**path_fields(path), "change": "added"})
            elif change.new is None:
                changes.append({**path_fields(path), "change": "removed"})
            elif not same_but_for_times_of_directories(change.old, change.new):
                changes.append({**path_fields(path), "change": "changed"})
        return changes

    async def events(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        rows = self._daemon.runtime.store.events(int(params.get("since_ms") or 0), 10_000)
        return {
            "events": [
                {
                    "at": moment(row.at_ms),
                    "what": row.kind,
                    "fileset": row.line.fileset if row.line is not None else None,
                    "text": row.text,
                    **{k: v for k, v in row.facts.items() if k not in ("at", "what", "fileset", "text")},
                }
                for row in rows
            ]
        }

    # Explain ------------------------------------------------------------------------------------------------

    async def explain(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        daemon = self._daemon
        service = service_of(daemon, params)
        path = old_path_of(params)
        carried, why_path = self._path_fate(service, path)
        rows: list[dict[str, Any]] = []
        me = daemon.runtime.name
        if service.writer != me:
            rows.append(
                {
                    "node": me,
                    "gets": carried,
                    "via": sorted(service.sources) if isinstance(service, FollowService) else [],
                    "why": why_path or f"it follows {service.writer}",
                }
            )
        for name in sorted(daemon.runtime.settings.partners):
            if name == service.writer:
                continue
            why = daemon.peers.access.why_not(name, service)
            session = daemon.peers.sessions.get(name)
            gets = why is None and carried
            if why is None and session is None:
                said = reports_of(daemon.runtime.store, service.line).get(name)
                why, gets = (
                    (None, carried)
                    if said is not None
                    else (f"{name} is not connected and never reported", False)
                )
            elif why is None and session is not None and service.line not in session.accepted:
                why, gets = f"{name} has not accepted {service.fileset.name}", False
            rows.append(
                {
                    "node": name,
                    "gets": gets,
                    "via": [me],
                    "why": why or why_path or "linked on both sides and accepted there",
                }
            )
        known = {row["node"] for row in rows} | {service.writer}
        for name, report in sorted(reports_of(daemon.runtime.store, service.line).items()):
            if report.via and name not in known:
                why = why_path or f"it follows over the hub {report.via}"
                rows.append({"node": name, "gets": carried, "via": [report.via], "why": why})
        shown_path = path_fields(path) if path is not None else {"path": None}
        held: dict[str, Any] = {}
        if isinstance(service, WriterService):
            held = explained(service.fileset, service.facts, path)
        return {"fileset": service.fileset.name, **shown_path, "to": rows, **held}

    def _path_fate(
        self, service: WriterService | FollowService, path: bytes | None
    ) -> tuple[bool, str | None]:
        """Whether the head carries this path, and why not."""
        if path is None or not path:
            return True, None
        definition = service.known_definition()
        if definition is not None:
            from instep.tree.rules import Rules

            if Rules(definition).ignored(path, False) or Rules(definition).ignored(path, True):
                return False, f"{shown(path)} is ignored by the definition"
        if service.head is None:
            return False, "nothing is published yet"
        if lookup(service.head.root, path, getter(self._daemon.runtime.store)) is None:
            return False, f"generation {service.head.number} does not have {shown(path)}"
        return True, None


def runtime_reports(daemon: Daemon, service: FollowService) -> Mapping[NodeName, m.Report]:
    """Reports of partners behind this hub."""
    return reports_of(daemon.runtime.store, service.line)


def _is_within(path: bytes, tops: Mapping[bytes, object]) -> bool:
    at = path.rpartition(b"/")[0]
    while at:
        if at in tops:
            return True
        at = at.rpartition(b"/")[0]
    return False
