"""Keeps balancers in step with the membership: files rendered, checked, put in place and reloaded; drains sent at once.

Everything is a level: the wanted file is compared with the present one after every change, so a lost event or a
restart costs time only. A file that a balancer refuses changes nothing, is named in ``status``, and is not retried
before another one would be rendered or an operator asks for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instep.api.balancers import BalancerFileDocument
from instep.errors import InstepError, RefusedError, UnavailableError
from instep.fleet.balancers.file import Program, check_file, keep_file, read_kept
from instep.fleet.balancers.haproxy import drain_commands
from instep.fleet.balancers.haproxy_socket import tell
from instep.fleet.balancers.plan import BalancerPlan
from instep.fleet.hooks.hooks import run_hook
from instep.fleet.hooks.spec import HookCall, HookOutcome, quoted
from instep.model.ids import FilesetName
from instep.net.messages import messages as m
from instep.node.balance.plan import STATE, Rendered, chosen, plan_of, render, surroundings
from instep.node.balance.watch import Watch
from instep.node.config.balancers import BalancerSettings
from instep.node.lines.hook_calls import spec_of
from instep.node.node import Node

SETTLE_S = 0.5
"""Between a changed membership and its file: a node that starts sends several messages."""
BETWEEN_S = 5.0
URGENT_BETWEEN_S = 0.5
"""Between two automatic reloads of one file, however often its input changes; the second where drains are in it."""
AGAIN_S = 1.0
DUE = "balancer/due/"
LINES_KEPT = 2_000
"""Characters of a failed reload's output that its error carries."""


@dataclass(frozen=True, slots=True)
class FileOf:
    """The sections that are rendered into one file; they say the same of it."""

    path: Path
    sections: tuple[BalancerSettings, ...]

    @property
    def first(self) -> BalancerSettings:
        return self.sections[0]


class Balancers:
    """One per node. ``troubles`` are sentences for ``status``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.troubles: dict[str, str] = {}
        self.watch = Watch(node.runtime)
        self._told: m.Serving | None = None
        self._pushed: dict[tuple[Path, str], bool] = {}
        self._refused: dict[Path, str] = {}
        """Texts that their balancer did not take."""
        self._updated: dict[Path, float] = {}
        self._seen: object = None
        self._applying = asyncio.Lock()

    async def run(self) -> None:
        """Look whenever something changed, until cancelled."""
        try:
            while True:
                changed = self._node.runtime.changed
                is_whole = await self._look()
                try:
                    async with asyncio.timeout(None if is_whole else AGAIN_S):
                        await changed.wait()
                except TimeoutError:
                    continue
        finally:
            await self.watch.close()

    async def _look(self) -> bool:
        """Bring everything to where it should be; whether nothing is left to retry."""
        self._tell_self()
        files = self.files()
        now = self._view(files)
        if now == self._seen:
            return True
        self._forget_gone(files)
        plans = {file.path: self.plans(file.sections, file.path) for file in files}
        kept = [
            file for file in files if file.first.is_automatic
        ]  # a drain would wait in vain for the others
        self.watch.follow([(file.first.program, file.path, plans[file.path]) for file in kept])
        for file in files:
            self._keep_state(file)
        is_whole = await self._push()
        for file in files:
            is_whole = await self._follow(file) and is_whole
        # Where something is left to do, a state that was whole before is not there any more, should it come back.
        self._seen = now if is_whole else None
        return is_whole

    def _view(self, files: Collection[FileOf]) -> object:
        """All that a file is made of: while it is the same, there is nothing to do."""
        asked = {each.name for file in files for each in file.sections}
        watched = [(name, sorted(self.watch.out(name))) for name in sorted(asked)]
        return self._node.runtime.settings.fingerprint, self._told, self._node.membership.version, watched

    async def _follow(self, file: FileOf) -> bool:
        """One file, where it is kept by itself; whether nothing is left to retry."""
        is_nginx = file.first.program is Program.NGINX
        if not file.first.is_automatic:
            return True
        if is_nginx and not self.watch.is_settled(file.path):
            return False  # which nodes are drained is not known yet
        if not self._look_at(file):
            return True
        last = self._updated.get(file.path)
        between = URGENT_BETWEEN_S if is_nginx else BETWEEN_S
        if last is not None and asyncio.get_running_loop().time() - last < between:
            return False
        if not is_nginx:
            await asyncio.sleep(SETTLE_S)  # whatever changes meanwhile is rendered with it
        self._updated[file.path] = asyncio.get_running_loop().time()
        return await self._update(file)

    def _forget_gone(self, files: Collection[FileOf]) -> None:
        paths = {file.path for file in files}
        for path in [path for path in self._refused if path not in paths]:
            del self._refused[path]
        for key in [key for key in self.troubles if key not in self._keys(files)]:
            del self.troubles[key]

    def _keys(self, files: Collection[FileOf]) -> set[str]:
        sockets = {b.haproxy_socket for b in self._node.runtime.settings.balancers.values()}
        return {*(str(file.path) for file in files), *(str(each) for each in sockets if each is not None)}

    def _tell_self(self) -> None:
        serving = self._node.membership.myself().serving
        if serving != self._told:
            self._told = serving
            self._node.peers.tell_self()

    # The wanted files ---------------------------------------------------------------------------------------

    def files(self) -> list[FileOf]:
        found: dict[Path, list[BalancerSettings]] = {}
        for balancer in self._node.runtime.settings.balancers.values():
            if balancer.file is not None and balancer.services:
                found.setdefault(balancer.file, []).append(balancer)
        return [FileOf(path, tuple(sections)) for path, sections in found.items()]

    def plans(self, sections: Collection[BalancerSettings], file: Path | None) -> tuple[BalancerPlan, ...]:
        """``file`` is where HAProxy will read it: the list of drained nodes is kept beside it."""
        membership = self._node.membership
        me, settings = membership.myself(), self._node.runtime.settings
        state = file.with_name(file.name + STATE) if file is not None else None
        return tuple(
            plan_of(
                settings,
                each,
                me,
                membership.members,
                self.watch.out(each.name),
                state_file=state if each.program is Program.HAPROXY else None,
            )
            for each in sections
        )

    def rendered(self, file: FileOf) -> Rendered:
        """The text for a file that the settings name."""
        first = file.first
        before = read_kept(file.path) if first.program is Program.PROXY_MAP else None
        plans = self.plans(file.sections, file.path)
        around = surroundings(file.sections)
        return render(first.program, plans, is_whole=first.is_whole, around=around, before=before)

    def render_for(
        self, program: Program, names: Collection[str], *, is_whole: bool, before: str | None
    ) -> Rendered:
        """The text of the named sections, else of the sections of this kind, else of all."""
        sections = chosen(self._node.runtime.settings, names)
        if not names:
            sections = tuple(each for each in sections if each.program is program) or sections
        plans: list[BalancerPlan] = []
        for each in sections:
            plans += self.plans((each,), each.file if each.program is program else None)
        return render(program, plans, is_whole=is_whole, around=surroundings(sections), before=before)

    # Files ------------------------------------------------------------------------------------------------------

    def _look_at(self, file: FileOf) -> bool:
        """Whether the file has to be put in place or read anew; trouble in it is shown, or gone."""
        try:
            wanted = self.rendered(file).text
            if self._refused.get(file.path) == wanted:
                return False
            if read_kept(file.path) != wanted or self._is_reload_due(file.path):
                return True
        except InstepError as error:
            self._trouble(str(file.path), error)
            return False
        self.troubles.pop(str(file.path), None)
        self.watch.applied(file.path, self.plans(file.sections, file.path))
        return False

    def _is_reload_due(self, path: Path) -> bool:
        return self._node.runtime.store.get(DUE + str(path)) is not None

    async def _update(self, file: FileOf) -> bool:
        """Whether nothing is left to retry."""
        try:
            await self.apply(file)
        except InstepError as error:
            self._trouble(str(file.path), error)
            return error.retry.value == "never"
        self.troubles.pop(str(file.path), None)
        return True

    async def apply(
        self, file: FileOf, *, may_replace: bool = False, is_asked: bool = False
    ) -> BalancerFileDocument:
        """Render, let the parser read it, put it in place, reload. The present file stays when the parser refuses.
        ``is_asked`` reloads even when nothing changed."""
        async with self._applying:
            made = self.rendered(file)
            first = file.first
            try:
                verdict = await check_file(
                    first.program, made.text, is_whole=first.is_whole, command=first.check
                )
                self._keep_state(file)
                changed = await asyncio.to_thread(self._keep, file, made, may_replace)
                is_due = changed or is_asked or self._is_reload_due(file.path)
                if is_due:
                    await self._reload(file)
            except InstepError as error:
                if isinstance(error, RefusedError):
                    self._refused[file.path] = made.text
                self._trouble(str(file.path), error)
                raise
            self._refused.pop(file.path, None)
            self.troubles.pop(str(file.path), None)
            self.watch.applied(file.path, made.plans)
            if changed:
                text = f"{file.path} was rendered for {first.program.value}"
                self._node.runtime.note("balancer_rendered", text, path=str(file.path))
            return BalancerFileDocument(
                file=str(file.path),
                kind=first.program.value,
                balancers=tuple(plan.name for plan in made.plans),
                changed=changed,
                checked_by=tuple(verdict.command) if verdict.command is not None else None,
                reloaded=is_due and first.reload is not None,
                warnings=tuple(made.warnings),
            )

    async def why_not(self, file: FileOf) -> str | None:
        """The obstacle to the file as it would be now: its parser, a node that cannot be asked, a failed reload."""
        try:
            made = self.rendered(file)
            await check_file(made.program, made.text, is_whole=made.is_whole, command=file.first.check)
        except InstepError as error:
            return error.reason
        return self.troubles.get(str(file.path)) or "; ".join(made.warnings) or None

    def _keep(self, file: FileOf, made: Rendered, may_replace: bool) -> bool:
        """The reload is due from before the file is there, so that a crash in between forgets nothing."""
        store, key = self._node.runtime.store, DUE + str(file.path)
        is_shared = made.program is Program.PROXY_MAP
        was_due = store.get(key) is not None
        if file.first.reload is not None and not was_due:
            store.put(key, b"1")
        try:
            changed = keep_file(file.path, made.text, may_replace=may_replace, is_shared=is_shared)
        except InstepError:
            if not was_due:
                store.delete(key)
            raise
        if not changed and not was_due:
            store.delete(key)
        return changed

    async def _reload(self, file: FileOf) -> None:
        """The file stays also when this fails: its parser liked it, and a balancer that is down begins with it."""
        outcome = await self._run_reload(file)
        if outcome is not None:
            raise UnavailableError(
                f"{file.path} is in place, but the reload of {file.first.program.value} failed: {outcome.reason}",
                hint="it is retried; look at the balancer's log, then: instep balancer reload",
                code="balancer_reload_failed",
                path=str(file.path),
                last_lines=outcome.output_tail[-LINES_KEPT:].splitlines()[-20:],
            )
        self._node.runtime.store.delete(DUE + str(file.path))

    async def _run_reload(self, file: FileOf) -> HookOutcome | None:
        """None when it went well, or there is no hook."""
        hook = file.first.reload
        if hook is None:
            return None
        fileset = FilesetName(next((name for each in file.sections for name in each.filesets), ""))
        extra = {"INSTEP_BALANCER_FILE": str(file.path)}
        outcome = await run_hook(spec_of(hook), HookCall("balancer", fileset, None, None, (), extra))
        return None if outcome.ok else outcome

    def _trouble(self, key: str, error: InstepError) -> None:
        """Show it, and note it once: the output beside the same reason may hold the time of each attempt."""
        lines: Any = error.facts.get("last_lines", ())
        explained = error.reason + quoted("\n".join(lines).encode())
        is_known = self.troubles.get(key, "").startswith(error.reason)
        self.troubles[key] = explained + (f"; next: {error.hint}" if error.hint else "")
        if not is_known:
            self._node.runtime.note("balancer_refused", explained, code=error.error_code)
            self._node.runtime.tell()

    # Drains -----------------------------------------------------------------------------------------------------

    def _keep_state(self, file: FileOf) -> None:
        """Write the list of drained nodes, for an HAProxy that any user or program may reload at any time."""
        if file.first.program is not Program.HAPROXY:
            return
        try:
            state = self.rendered(file).state
            if state is not None:
                keep_file(
                    file.path.with_name(file.path.name + STATE), state, is_shared=True, keeps_previous=False
                )
        except InstepError as error:
            self._trouble(str(file.path), error)

    async def _push(self) -> bool:
        """Send HAProxy over its socket the nodes that were drained or came back since; whether all of it was sent."""
        wanted: dict[Path, dict[str, tuple[bool, tuple[str, ...]]]] = {}
        for balancer in self._node.runtime.settings.balancers.values():
            if balancer.haproxy_socket is not None and balancer.services:
                (plan,) = self.plans((balancer,), None)
                wanted.setdefault(balancer.haproxy_socket, {}).update(drain_commands(plan))
        return all([await self._push_to(socket, servers) for socket, servers in wanted.items()])

    async def _push_to(self, socket: Path, servers: Mapping[str, tuple[bool, tuple[str, ...]]]) -> bool:
        news = {
            at: (is_out, lines)
            for at, (is_out, lines) in servers.items()
            if self._pushed.get((socket, at), False) != is_out
        }
        try:
            refused = await tell(socket, [line for _, lines in news.values() for line in lines])
        except InstepError as error:
            self._trouble(str(socket), error)
            return False
        for at, (is_out, _) in news.items():
            self._pushed[socket, at] = is_out
        if refused:
            self._trouble(str(socket), RefusedError(f"HAProxy's socket {socket}: {'; '.join(refused)[:500]}"))
        else:
            self.troubles.pop(str(socket), None)
        return True

    # Commands ---------------------------------------------------------------------------------------------------

    async def reload(self, names: Collection[str], *, may_replace: bool) -> list[BalancerFileDocument]:
        """Render and reload every file, or the files that hold a named section."""
        sections = {each.name for each in chosen(self._node.runtime.settings, names)}
        files = [file for file in self.files() if any(each.name in sections for each in file.sections)]
        if not files:
            raise RefusedError(
                f"no file is set for {', '.join(sorted(sections))}",
                hint="set file in its section, or: instep balancer render KIND --output FILE",
                code="no_balancer_file",
            )
        return [await self.apply(file, may_replace=may_replace, is_asked=True) for file in files]
