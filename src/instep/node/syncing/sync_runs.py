"""The sync profiles that this node carries out: one run of each at a time, its record, its base, and its listings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from instep.api.changes import sync as api
from instep.core.sync.run import HELD
from instep.core.sync.table import Side
from instep.core.sync.work import SyncWork
from instep.errors import (
    ContentionError,
    InstepError,
    NotAllowedError,
    RefusedError,
    ResourceError,
    UnavailableError,
    UsageError,
)
from instep.model.counts import counted
from instep.model.ids import Digest, FilesetName, LineId, NodeName
from instep.model.ids import node_name as parse_node_name
from instep.model.sync import RUN_MAX, SyncBase, SyncPhase
from instep.net.messages import messages as m
from instep.net.service import PeerCalls
from instep.node.config.sync import SideSettings, SyncSettings
from instep.node.lines.line_service import LineService
from instep.node.lines.snapshot import moment
from instep.node.profiles.bases import SyncBases
from instep.node.profiles.known_profiles import MOVED, known_profile, news_of
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime
from instep.node.syncing.former_bases import FormerBases
from instep.node.syncing.notices import SyncNotices
from instep.node.syncing.sides import FactsOfSide, FarHome, NearHome
from instep.node.syncing.sync_record import open_listings, reviewed, run_document
from instep.node.syncing.sync_run import SyncRunner
from instep.tree.root.os_errors import help_for

LOOK_AGAIN_S, LOOKS_MAX = 0.1, 20
"""A home that scans or publishes is asked again for so long."""
RECORD, LISTED, NUMBER = "sync/run/", "sync/listed/", "sync/number/"
log = logging.getLogger(__name__)


class HomeLook(NamedTuple):
    """What a home answered about a profile, or why it could not be asked."""

    reply: m.ProfileReply | None
    error: InstepError | None = None


class _Running:
    """A run under way."""

    def __init__(self, work: SyncWork, initiator: NodeName) -> None:
        self.work = work
        self.initiator = initiator
        self.task: asyncio.Task[api.SyncRunDocument]


class SyncRuns:
    """``service_of`` finds the line of a fileset that is written here; ``calls_of`` a partner that this node dials."""

    def __init__(
        self,
        runtime: Runtime,
        service_of: Callable[[FilesetName], LineService | None],
        calls_of: Callable[[NodeName], PeerCalls | None],
        facts_of: FactsOfSide,
        notices: SyncNotices,
    ) -> None:
        self._runtime = runtime
        self._notices = notices
        self._facts_of = facts_of
        self._service_of = service_of
        self._calls_of = calls_of
        self._running: dict[str, _Running] = {}
        self._busy = 0

    # --- what is known ------------------------------------------------------------------------------------------

    def profile(self, name: str) -> SyncSettings:
        found = self._runtime.settings.sync.get(name)
        if found is None:
            known = ", ".join(sorted(self._runtime.settings.sync)) or "none"
            raise RefusedError(
                f"{self._runtime.name} has no sync profile {name}; it has: {known}",
                hint="instep sync list",
                code="unknown_profile",
                profile=name,
            )
        return found

    def base_of(self, name: str) -> SyncBase | None:
        """The newest base of the profile that is kept here."""
        kept = self._bases_of(name)
        return kept[-1] if kept else None

    def run_of(self, name: str) -> api.SyncRunDocument | None:
        """The run under way, else the last one."""
        running = self._running.get(name)
        if running is not None:
            return self._document(self.profile(name), running)
        raw = self._runtime.store.get(f"{RECORD}{name}")
        return msgspec.json.decode(raw, type=api.SyncRunDocument) if raw is not None else None

    def listed(self, name: str) -> tuple[api.SyncListedDocument, ...]:
        raw = self._runtime.store.get(f"{LISTED}{name}")
        return msgspec.json.decode(raw, type=tuple[api.SyncListedDocument, ...]) if raw is not None else ()

    def review(self, name: str, which: str) -> None:
        """Mark a listing as looked at."""
        marked = reviewed(self.listed(name), which)
        if marked is None:
            raise RefusedError(
                f"{name} lists no path as {which}",
                hint=f"instep sync collisions {name} --all",
                code="unknown_listing",
                id=which,
            )
        self._runtime.store.put(f"{LISTED}{name}", msgspec.json.encode(marked))

    # --- housekeeping -------------------------------------------------------------------------------------------

    def page_roots(self) -> list[Digest]:
        """The roots whose pages are kept: those that bases name, and of both sides as the last run left them."""
        roots: list[Digest] = []
        for profile in self._runtime.settings.sync.values():
            roots += SyncBases(self._runtime.store, profile).page_roots()
        return roots

    @property
    def is_at_work(self) -> bool:
        """Pages of a run under way are named by nothing yet."""
        return bool(self._running or self._busy)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Pages are fetched for a base that nothing names yet."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    # --- runs ---------------------------------------------------------------------------------------------------

    def begin(self, name: str, work: SyncWork, initiator: NodeName) -> asyncio.Task[api.SyncRunDocument]:
        """Start a run. ``ContentionError`` while one is under way, ``NotAllowedError`` for any but an initiator."""
        profile = self.profile(name)
        if initiator not in profile.may_start:
            allowed = ", ".join(sorted(profile.may_start))
            raise NotAllowedError(
                f"{initiator} may not start runs of {name}; allowed: {allowed}",
                hint=f"on {profile.carrier}: instep sync run {name}",
                code="no_initiator",
                node=initiator,
            )
        self._runtime.read_only.require_off(initiator)
        running = self._running.get(name)
        if running is not None:
            raise _busy(name, running)
        run = self._made(profile, work)
        running = self._running[name] = _Running(work, initiator)
        running.task = asyncio.get_running_loop().create_task(self._carry_out(profile, running, run))
        return running.task

    def cancel(self, name: str) -> bool:
        """End the run under way; its base stays as it was."""
        running = self._running.get(name)
        return running is not None and running.task.cancel()

    async def close(self) -> None:
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _made(self, profile: SyncSettings, work: SyncWork) -> SyncRunner:
        near, far = self.homes_of(profile)
        former = self.former_bases(profile, near, far)
        work.number = self._last_number(profile) + 1
        if not work.is_dry_run:
            self._runtime.store.put(f"{NUMBER}{profile.name}", str(work.number).encode())
        return SyncRunner(self._runtime, profile, near, far, former, work, self._runtime.tell)

    def former_bases(self, profile: SyncSettings, near: NearHome, far: FarHome) -> FormerBases:
        return FormerBases(self._runtime, profile, near, far, self._calls_of)

    def homes_of(self, profile: SyncSettings) -> tuple[NearHome, FarHome]:
        """This home and the other one; ``RefusedError`` where this node does not write its side."""
        me = self._runtime.name
        is_left = profile.left.home == me
        near, far = (profile.left, profile.right) if is_left else (profile.right, profile.left)
        service = self._service_of(near.fileset)
        if near.home == me and service is not None and not service.is_written_here:
            raise _moved(profile, Side.LEFT if is_left else Side.RIGHT, service.writer)
        if near.home != me or service is None:
            raise RefusedError(
                f"{me} does not write {near.fileset}, its side of {profile.name}",
                hint="instep fileset list; instep sync list",
                code="not_the_writer",
                profile=profile.name,
            )
        base = self.base_of(profile.name)
        far_home = FarHome(
            self._runtime,
            LineId(far.fileset, far.home),
            profile,
            lambda: self._calls(far, profile.name),
            None if base is None else base.right if is_left else base.left,
        )
        return NearHome(self._runtime, service, self._facts_of), far_home

    def _last_number(self, profile: SyncSettings) -> int:
        """The highest number of a run, also of one that the other home carried out."""
        base, raw = self.base_of(profile.name), self._runtime.store.get(f"{NUMBER}{profile.name}")
        homes = (profile.left.home, profile.right.home)
        known = known_profile(self._runtime.store, self._runtime.settings, profile.name, homes)
        found = (base.run if base is not None else 0, int(raw or 0), known.run if known is not None else 0)
        return max((number for number in found if number < RUN_MAX), default=0)

    def _bases_of(self, name: str) -> tuple[SyncBase, ...]:
        return SyncBases(self._runtime.store, self.profile(name)).kept()

    async def looks(self, profile: SyncSettings) -> dict[Side, HomeLook]:
        """How both homes are now: their heads, and edits of paths that are locked there."""
        found = await asyncio.gather(*(self._look(profile, side) for side in Side))
        return dict(zip(Side, found, strict=True))

    async def _look(self, profile: SyncSettings, side: Side) -> HomeLook:
        try:
            near, far = self.homes_of(profile)
            home = near if profile.side(side).home == near.node else far
            news = news_of(profile, side, self._last_number(profile))
            reply = await home.announce(news)
            for _ in range(LOOKS_MAX):
                if reply.state is None or not reply.state.is_working:
                    break
                await asyncio.sleep(LOOK_AGAIN_S)
                reply = await home.announce(news)
            return HomeLook(reply)
        except InstepError as error:
            return HomeLook(None, _with_step(profile, error))

    def _calls(self, far: SideSettings, profile: str) -> PeerCalls:
        calls = self._calls_of(far.home)
        if calls is None:
            raise UnavailableError(
                f"{self._runtime.name} has no address of {far.home}, the other home of {profile}",
                hint=f"instep partner set {far.home} --address HOST:PORT",
                code="not_connected",
                node=far.home,
            )
        return calls

    async def _carry_out(
        self, profile: SyncSettings, running: _Running, run: SyncRunner
    ) -> api.SyncRunDocument:
        """One run to its end, and its record. The base is durable before the record says that the run is done."""
        work = running.work
        try:
            await run.run()
            work.phase = work.ended
        except asyncio.CancelledError:
            work.phase = SyncPhase.CANCELLED
            raise
        except InstepError as error:
            work.phase = SyncPhase.HELD if error.error_code == HELD else SyncPhase.FAILED
            work.error = _with_step(profile, error)
        except OSError as error:
            code, step = help_for(error.errno or 0, self._runtime.directory.path)
            reason = f"the run of {profile.name} met a disk that fails: {error.strerror or error}"
            hint = f"{step}; then: instep sync run {profile.name}"
            work.phase, work.error = SyncPhase.FAILED, ResourceError(reason, hint=hint, code=code)
        finally:
            work.ended_at_ms = wall_ms()
            del self._running[profile.name]
            document = self._document(profile, running)
            if not work.is_dry_run:
                self._record(profile, document)
            self._runtime.tell()
        return document

    def _record(self, profile: SyncSettings, document: api.SyncRunDocument) -> None:
        store, name, before = self._runtime.store, profile.name, self.listed(profile.name)
        listed = open_listings(before, document.listed)
        waiting = {each.id for each in before if not each.reviewed}
        self._notices.ran(profile, document, [each for each in document.listed if each.id not in waiting])
        store.put(f"{LISTED}{name}", msgspec.json.encode(listed))
        store.put(f"{RECORD}{name}", msgspec.json.encode(document))
        store.put(f"{NUMBER}{name}", str(document.run).encode())
        made = document.left.made + document.right.made
        facts: dict[str, Any] = {
            "profile": name,
            "initiator": document.initiator,
            "listed": len(document.listed),
        }
        if document.phase == SyncPhase.HELD and document.error is not None:
            self._runtime.note("sync_held", f"sync {name} is held: {document.error.reason}", **facts)
        elif document.error is not None:
            self._runtime.note("sync_failed", f"sync {name} failed: {document.error.reason}", **facts)
        elif document.undone:
            left = counted(len(document.undone), "path")
            self._runtime.note("sync_failed", f"sync {name} left {left} undone", **facts)
        else:
            self._runtime.note("sync_ran", f"sync {name} changed {counted(made, 'path')}", **facts)

    def _document(self, profile: SyncSettings, running: _Running) -> api.SyncRunDocument:
        return run_document(profile, running.work, running.initiator, self._runtime.name)


def _moved(profile: SyncSettings, side: Side, writer: object) -> RefusedError:
    """Another node writes this side now: the profile names it, and the base moves to it."""
    was = profile.side(side)
    now = {each: profile.side(each) for each in Side}
    now[side] = SideSettings(was.fileset, NodeName(str(writer)))
    left, right = now[Side.LEFT], now[Side.RIGHT]
    return RefusedError(
        f"{was.home} does not write {was.fileset} any more: {writer} does",
        hint=f"on each server that has the profile: instep sync add {profile.name} "
        f"--left {left.fileset}@{left.home} --right {right.fileset}@{right.home}; "
        f"then: instep sync run {profile.name}",
        code=MOVED,
        node=was.home,
        writer=str(writer),
    )


def _with_step(profile: SyncSettings, error: InstepError) -> InstepError:
    """The error of a home that moved, with what to type."""
    writer, node = error.facts.get("writer"), error.facts.get("node")
    if error.error_code != MOVED or error.hint or not isinstance(writer, str):
        return error
    side = Side.LEFT if profile.left.home == node else Side.RIGHT
    try:
        return _moved(profile, side, parse_node_name(writer))
    except UsageError:
        return error


def _busy(name: str, running: _Running) -> ContentionError:
    work, since = running.work, moment(running.work.began_at_ms)
    return ContentionError(
        f"a run of {name} is under way, started by {running.initiator} at {since}: {work.phase}, {work.percent} %",
        hint=f"instep sync show {name}",
        code="sync_running",
        node=running.initiator,
        since=since,
        phase=work.phase.value,
        percent=work.percent,
    )
