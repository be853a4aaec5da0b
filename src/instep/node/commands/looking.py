"""Looking: status, log, diff, events, verify. Nothing here changes anything."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from instep.api import looking as api
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.manifest.manifest import diff
from instep.model.paths import shown
from instep.net.trust.pki_problems import PkiProblem, problems_of
from instep.node.cluster.database_view import database_document
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.patience import watched
from instep.node.commands.targets import (
    current_reports,
    direct_followers,
    generation_of,
    owner_trouble,
    path_of,
    running_service_of,
    service_of,
)
from instep.node.facts.owners import is_news, of_written
from instep.node.lines.line_service import LineService
from instep.node.lines.path_log import LOG_MAX, path_log
from instep.node.lines.snapshot import (
    events_document,
    fileset_document,
    line_document,
    log_row,
    moment,
    partner_document,
    pick_fileset,
)
from instep.node.peers.dialled_link import DialledLink
from instep.node.peers.link_cures import cures_of
from instep.node.peers.network.dates import with_date
from instep.node.profiles.locked_paths import with_locked_edits
from instep.node.retrieval.text_difference import TextDifferences, relative_to
from instep.node.retrieval.whereabouts import Whereabouts
from instep.node.runtime.draining import OPERATOR, is_asked
from instep.node.runtime.driver import wall_ms
from instep.node.trees.keeping.page_walk import must_have
from instep.node.trees.root_watch import look_at_all
from instep.node.trees.shown_changes import changes_shown
from instep.node.upkeep.after_reboot import Host, after_reboot
from instep.tree.scan.compare import Difference

DIFF_MAX = 100_000
FOLLOW_LOOK_S = 0.25
OWN = "node.crt"
"""The certificate that this node shows to the others."""
COPY_SHOWN_MS = 120_000
"""A copy that still runs dials again well within this."""


class Looking(CommandHandlers):
    async def ping(self, asked: api.PingCommand, speaker: Speaker) -> api.PingDocument:
        return api.PingDocument(self._node.runtime.name, os.getpid())

    async def stop(self, asked: api.StopCommand, speaker: Speaker) -> api.StopDocument:
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, self._node.stopping.set)
        return api.StopDocument(self._node.runtime.name, True)

    # Status -------------------------------------------------------------------------------------------------

    async def status(self, asked: api.StatusCommand, speaker: Speaker) -> api.StatusDocument:
        await look_at_all(service.root for service in self._node.services.values())
        return await watched(
            self._node,
            lambda: self.document(asked.fileset, asked.max_behind_ms),
            speaker,
            is_watched=asked.watch,
        )

    def document(self, named: str | None, max_behind_ms: int | None = None) -> api.StatusDocument:
        node, state = self._node, self._context.cluster.state
        settings, problem = node.runtime.settings, node.config_problem
        chosen = [pick_fileset(settings, named)] if named else list(settings.filesets.values())
        config = api.ConfigDocument("current", settings.fingerprint)
        if problem is not None:
            problems: Any = problem.facts.get("problems", ())
            config = api.ConfigDocument("refused", settings.fingerprint, problem.reason, tuple(problems))
        return api.StatusDocument(
            node=settings.name,
            daemon="running",
            config=config,
            filesets=tuple(self._fileset(node.services[fileset.name], max_behind_ms) for fileset in chosen),
            links=tuple(self._link(uplink) for uplink in node.peers.uplinks.values()),
            offers=self._open_offers(),
            warnings=tuple(self._warnings()),
            database=database_document(state) if state.shown else UNSET,
        )

    def _link(self, uplink: DialledLink) -> api.LinkDocument:
        error, known = uplink.error, (uplink.name, str(uplink.address), uplink.is_up)
        if error is None or uplink.is_up:
            return api.LinkDocument(*known, None, None, ())
        steps = cures_of(error, self._node.runtime.name, uplink.name)
        return api.LinkDocument(*known, error.reason, error.error_code, steps)

    def _open_offers(self) -> tuple[api.OfferDocument, ...]:
        followed = self._node.runtime.settings.filesets
        return tuple(
            api.OfferDocument(
                line.fileset, offer.writer, uplink.name, offer.fileset_class, offer.mode, offer.entries,
                offer.size_bytes,
            )
            for uplink in self._node.peers.uplinks.values()
            for line, offer in uplink.offers.items()
            if line.fileset not in followed
        )  # fmt: skip

    def _second_writers(self) -> Iterator[str]:
        for service in self._node.services.values():
            name = service.fileset.name
            others = sorted(self._node.other_writers(service.fileset)) if service.is_written_here else []
            if others:
                yield (
                    f"{name} is written here and on {', '.join(others)}, and a name has one writer: on one of them: "
                    f"instep fileset remove {name}"
                )

    def _warnings(self) -> list[str]:
        pki = self._node.pki
        warnings = list(self._node.runtime.settings.warnings)
        if self._node.runtime.state_note is not None:
            warnings.append(self._node.runtime.state_note)
        newer = self._context.installed.warning()
        if newer is not None:
            warnings.append(newer)
        reboot = after_reboot(self._node.directory, Host(), os.environ, os.getpid())
        if reboot.is_surprise:
            warnings.append(f"after a reboot {reboot.words}")
        warnings += self._context.listeners.troubles.values()
        warnings += self._node.membership.troubles()
        warnings += self._second_writers()
        warnings += self._context.balancers.troubles.values()
        warnings += self._context.shared_work.troubles()
        warnings += self._context.seat_desk.troubles()
        for said in (self._context.housekeeping.thinned, self._context.housekeeping.over_share):
            warnings += (said[name] for name in self._node.services if name in said)
        for service in self._node.services.values():
            trouble = owner_trouble(self._node.runtime.settings, service)
            foreign = self._context.housekeeping.foreign.get(service.fileset.name)
            if service.is_written_here and foreign is not None and is_news(service.fileset, foreign):
                trouble = of_written(service.fileset, foreign)
            if trouble is not None:
                warnings.append(str(trouble))
        for name, at_ms in self._node.peers.copies.items():
            if wall_ms() - at_ms < COPY_SHOWN_MS:
                warnings.append(
                    f"two nodes use the identity of {name}, the second was refused at {moment(at_ms)}; next: "
                    "stop the copy; a new server gets its own keys: instep invite NAME"
                )
        read_only = self._node.runtime.read_only.trouble()
        if read_only is not None:
            warnings.append(f"{read_only.reason}; next: {read_only.hint}")
        for drain in self._node.runtime.draining.reasons():
            why = f" ({drain.reason})" if drain.reason else ""
            until = f", until {moment(drain.until_ms)}" if drain.until_ms is not None else ""
            by = "" if drain.key == OPERATOR else f", by {drain.key}"
            by_hand = by + (": instep node undrain" if is_asked(drain.key) else "")
            warnings.append(f"this node is drained since {moment(drain.since_ms)}{why}{until}{by_hand}")
        found = problems_of(pki, wall_ms())
        warnings += [
            f"{one.path.name} {one.detail}; next: {one.hint}"
            for one in found
            if one.what in ("expiry", "early", "damaged")
        ]
        if self._node.renewal.trouble is not None:
            warnings.append(self._node.renewal.trouble)
        if pki.is_ca and pki.backed_up_at_ms() is None:
            warnings.append("the cluster's CA key has no backup; next: instep pki backup --to FILE")
        return warnings

    def _fileset(self, service: LineService, max_behind_ms: int | None) -> api.FilesetStatusDocument:
        runtime = self._node.runtime
        head, live = service.head, service.live
        partners = self._partners(service, wall_ms())
        line = line_document(
            runtime.store, service.line, service.writer, head, live, service.standing, partners
        )
        if service.is_written_here:
            rows, access = {row.name for row in partners}, self._node.peers.access
            missing = [
                name for name in sorted(runtime.settings.partners)
                if name not in rows and access.why_not(name, service) is None
            ]  # fmt: skip
            line = replace(line, not_accepted=tuple(missing) or UNSET)
        elif line.code == "no_source":
            down = [
                self._link(up) for name, up in self._node.peers.uplinks.items() if name in service.senders
            ]
            cures = (step for link in down for step in link.next)
            line = replace(line, next=tuple(dict.fromkeys((*cures, *line.next))))
        own = service.status_of(line)
        if service.home is not None:
            own = with_locked_edits(own, service.home.locked_edits())
        beside = [(other, self._line_beside(other)) for other in service.beside]
        lines = tuple(
            with_date(self._node.peers.freshness, each, row, max_behind_ms)
            for each, row in ((service, own), *beside)
        )
        document = fileset_document(service.fileset, service.known_definition(), lines)
        copies = self._context.copies.stands.get(service.fileset.name)
        document = replace(document, copies=copies or UNSET)
        if service.open_collisions is not None:
            document = replace(document, collisions=service.open_collisions)
        if service.fileset.without:
            return replace(document, without=tuple(sorted(service.fileset.without)))
        return document

    def _line_beside(self, service: LineService) -> api.LineDocument:
        """Another home's line in a fileset of many."""
        store, head, live = self._node.runtime.store, service.head, service.live
        return line_document(store, service.line, service.writer, head, live, service.standing, ())

    def _partners(self, service: LineService, now: int) -> Sequence[api.PartnerDocument]:
        node = self._node
        reports = current_reports(node, service)
        names = {name for name, report in reports.items() if report.via}.union(
            direct_followers(node, service)
        )
        rows: list[api.PartnerDocument] = []
        skews_ms = node.peers.skews_ms()
        trouble = self._own_trouble() if names - node.peers.sessions.keys() else None
        for name in sorted(names):
            report = reports.get(name)
            way = report.via if report is not None and report.via else name
            rows.append(
                partner_document(
                    node.runtime.store,
                    name,
                    report,
                    service.head,
                    is_connected=NodeName(way) in node.peers.sessions,
                    since_ms=node.started_ms,
                    poll_ms=node.runtime.settings.poll_ms,
                    now_ms=now,
                    heard_ms=node.peers.heard_ms(name) if way == name else None,
                    is_written_here=service.is_written_here,
                    is_fresh=node.peers.has_reported(service.line, name),
                    own_trouble=trouble,
                    skew_ms=skews_ms.get(name, 0),
                )
            )
        return rows

    def _own_trouble(self) -> PkiProblem | None:
        """Why no node takes this one's certificate now: by the clock here it has ended, or has not begun."""
        found = problems_of(self._node.pki, wall_ms())
        return next((one for one in found if one.path.name == OWN and one.what in ("expiry", "early")), None)

    # Log, diff, events ----------------------------------------------------------------------------------------

    async def log(self, asked: api.LogCommand, speaker: Speaker) -> api.LogDocument:
        service = service_of(self._node, asked.fileset)
        runtime = self._node.runtime
        known = runtime.store.generations(service.line, LOG_MAX)
        refs = [signed.ref() for signed in known]
        reports = current_reports(self._node, service)
        lives = {name: report.live for name, report in reports.items() if report.live is not None}
        found = await service.root_now()

        def get(digest: Digest) -> bytes:  # by whichever thread asks
            return must_have(runtime.store.get_page)(digest)

        look = Whereabouts(service.line, found, lives, get)
        await asyncio.to_thread(self._look_here, service, look, refs)
        await look.ask(refs, service.lenders())
        where = await asyncio.to_thread(lambda: [look.where(ref) for ref in refs])
        rows = (
            log_row(signed, place.places, place.parts) for signed, place in zip(known, where, strict=True)
        )
        return api.LogDocument(service.fileset.name, tuple(rows))

    async def path_log(self, asked: api.PathLogCommand, speaker: Speaker) -> api.PathLogDocument:
        service = service_of(self._node, asked.fileset)
        path = path_of(asked.path, asked.path_b64)
        assert path is not None
        lives = {name: report.live for name, report in current_reports(self._node, service).items()}
        lives[self._node.runtime.name] = service.live
        runtime = self._node.runtime
        return await asyncio.to_thread(lambda: path_log(runtime.store, service.line, path, lives))

    @staticmethod
    def _look_here(service: LineService, look: Whereabouts, refs: list[HeadRef]) -> None:
        contents = service.tree.contents()
        try:
            look.look_here(refs, contents)
        finally:
            contents.close()

    async def diff(self, asked: api.DiffCommand, speaker: Speaker) -> api.DiffDocument:
        service = service_of(self._node, asked.fileset)
        name = service.fileset.name
        if asked.a is None:
            changes = await service.worker.run(service.changes_now, DIFF_MAX)
            return api.DiffDocument(fileset=name, changes=changes, **service.held_fields())
        old = generation_of(service, asked.a)
        new = generation_of(service, asked.b) if asked.b is not None else service.head
        assert new is not None
        changes = await service.worker.run(self._between, old, new)
        return api.DiffDocument(fileset=name, a=old.number, b=new.number, changes=changes)

    async def text_diff(self, asked: api.TextDiffCommand, speaker: Speaker) -> api.TextDiffDocument:
        service = running_service_of(self._node, asked.fileset)
        path = relative_to(service.fileset.path, path_of(asked.path, asked.path_b64) or b"")
        texts = TextDifferences(service)
        if asked.a is None:
            a = b = None
            found = await texts.pending(service.live, path)
        else:
            old = generation_of(service, asked.a)
            new = generation_of(service, asked.b) if asked.b is not None else service.head
            assert new is not None
            a, b = old.number, new.number
            found = await texts.between(old, new, path)
        return api.TextDiffDocument(
            fileset=service.fileset.name, path=shown(path), a=a, b=b, lines=found.lines, cut=found.is_cut,
            why=found.why or None,
        )  # fmt: skip

    def _between(self, old: HeadRef, new: HeadRef) -> tuple[api.ChangeDocument, ...]:
        get = must_have(self._node.runtime.store.get_page)

        def look() -> Iterator[Difference]:
            return (Difference(one.path, one.old, one.new) for one in diff(old.root, new.root, get))

        return changes_shown(look, DIFF_MAX)

    async def events(self, asked: api.EventsCommand, speaker: Speaker) -> api.EventsDocument:
        node, after = self._node, asked.after
        while asked.follow and not node.stopping.is_set():
            found = events_document(node.runtime.store, asked.since_ms, after)
            if found.events:
                after = found.events[-1]["number"]
                await speaker.item(found)
            await asyncio.sleep(FOLLOW_LOOK_S)
        return events_document(node.runtime.store, asked.since_ms, after)
