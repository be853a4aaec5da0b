"""Notices of events to people and their services: performs what ``[notify.NAME]`` of this node says.

Events that wait for a notice are in the node's state, so that a restart forgets nothing. A notice that does not arrive
is tried again, later and later, with all that came meanwhile.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

from instep.core.notices import Noted, NoticeBook, NoticeFacts
from instep.fleet.hooks.hooks import run_hook
from instep.fleet.hooks.spec import HookCall, HookSpec
from instep.model.counts import counted
from instep.model.ids import FilesetName, LineId
from instep.node.config.outside.notify import NotifySettings
from instep.node.lines.hook_calls import spec_of
from instep.node.runtime.driver import monotonic_ms, wall_ms
from instep.node.runtime.runtime import Runtime

AGAIN_MIN_MS, AGAIN_MAX_MS = 30_000, 900_000
HEARD_MAX = 10_000
TOLD_MAX = 200
"""Lines in one notice; the rest is counted."""
_STORED = "notify/"
_WORD = re.compile(r"\{(text|node|kind|count)\}")


class Notices:
    """One per node."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._heard: deque[Noted] = deque(maxlen=HEARD_MAX)
        self._books: dict[str, NoticeBook] = {}
        self._not_before: dict[str, tuple[int, int]] = {}
        """Of receivers that took no notice: when they are tried again, and the pause behind that."""
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        runtime.on_note = self._hear

    def _hear(self, what: str, text: str, line: LineId | None, facts: Mapping[str, Any]) -> None:
        """In any thread."""
        if not self._runtime.settings.notify:
            return
        fileset, node, code = (line.fileset if line else ""), facts.get("node"), facts.get("code")
        self._heard.append(Noted(what, text, wall_ms(), fileset, str(node or ""), str(code or "")))
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            self._sort()
            waits_ms = [await self._serve(each) for each in tuple(self._runtime.settings.notify.values())]
            known = [each for each in waits_ms if each is not None]
            try:
                async with asyncio.timeout(min(known) / 1000 if known else None):
                    await self._wake.wait()
            except TimeoutError:
                pass  # a notice is due

    def _sort(self) -> None:
        """Events that were heard go to the books of their receivers, durably."""
        changed = set()
        while self._heard:
            noted = self._heard.popleft()
            for target in self._runtime.settings.notify.values():
                if target.wants(noted.kind, noted.fileset):
                    self._book(target).take(noted, target.rules)
                    changed.add(target.name)
        for name in changed:
            self._save(name)

    def _book(self, target: NotifySettings) -> NoticeBook:
        book = self._books.get(target.name)
        if book is None:
            raw = self._runtime.store.get(_STORED + target.name)
            facts = msgspec.msgpack.decode(raw, type=NoticeFacts) if raw is not None else None
            book = self._books[target.name] = NoticeBook(facts)
        return book

    def _save(self, name: str) -> None:
        self._runtime.store.put(_STORED + name, msgspec.msgpack.encode(self._books[name].facts))

    async def _serve(self, target: NotifySettings) -> int | None:
        """Send what is due; for how many milliseconds this receiver needs nothing."""
        book, now_ms = self._book(target), monotonic_ms()
        settings = self._runtime.settings
        if book.keep(settings.filesets, settings.partners):
            self._save(target.name)
        again_ms, _ = self._not_before.get(target.name, (0, 0))
        told = book.due(wall_ms(), target.rules)
        if told and now_ms >= again_ms:
            await self._tell(target, book, told)
            now_ms = monotonic_ms()
            again_ms, _ = self._not_before.get(target.name, (0, 0))
        next_ms = book.next_ms(target.rules)
        if next_ms is None:
            return None
        return max(next_ms - wall_ms(), again_ms - now_ms, 0)

    async def _tell(self, target: NotifySettings, book: NoticeBook, told: tuple[Noted, ...]) -> None:
        assert target.send is not None
        text = self._text(told, book.facts.dropped)
        spec = spec_for(target, told, text, self._runtime.name)
        call = HookCall(
            "notify",
            FilesetName(told[0].fileset),
            None,
            None,
            (),
            {"INSTEP_NOTIFY": target.name},
            told[0].kind,
            text,
        )
        outcome = await run_hook(spec, call)
        if outcome.ok:
            self._not_before.pop(target.name, None)
            book.sent(told, wall_ms())
            self._save(target.name)
            return
        _, before_ms = self._not_before.get(target.name, (0, 0))
        pause_ms = min(max(before_ms * 2, AGAIN_MIN_MS), AGAIN_MAX_MS)
        self._not_before[target.name] = monotonic_ms() + pause_ms, pause_ms
        reason = f"{counted(len(told), 'notice')} for {target.name} did not arrive: {outcome.explained}"
        self._runtime.note_of_peer(
            f"notify {target.name}", "notice_failed", reason, attempts=outcome.attempts
        )

    def _text(self, told: tuple[Noted, ...], dropped: int) -> str:
        name = self._runtime.name
        lines = [
            f"{name}: {each.fileset + ': ' if each.fileset else ''}{each.text}" for each in told[:TOLD_MAX]
        ]
        more = len(told) - len(lines) + dropped
        return "\n".join([*lines, f"{name}: and {counted(more, 'event')} more"] if more else lines)


def spec_for(target: NotifySettings, told: tuple[Noted, ...], text: str, node: str) -> HookSpec:
    """The call of a receiver's hook. A request gets a body: the receiver's own, with the words filled in as in a JSON
    string, else a document."""
    assert target.send is not None
    spec = spec_of(target.send)
    if spec.http is None:
        return spec
    if spec.body is None:
        document = {"node": node, "text": text, "notices": [_document(each) for each in told[:TOLD_MAX]]}
        return dataclasses.replace(spec, body=json.dumps(document))
    words = {"text": text, "node": node, "kind": told[0].kind, "count": str(len(told))}
    body = _WORD.sub(lambda found: json.dumps(words[found[1]])[1:-1], spec.body)
    return dataclasses.replace(spec, body=body)


def _document(noted: Noted) -> dict[str, str | int]:
    return {name: getattr(noted, name) for name in Noted.__struct_fields__}
