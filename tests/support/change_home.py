"""A home in one process: the real ``HomeMachine`` over a simulated disk, every effect answered at once, or cut off."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

from instep.core import vocabulary as w
from instep.core.changes import home_vocabulary as h
from instep.core.changes.home import HomeMachine
from instep.core.changes.home_facts import HomeConfig, Submission
from instep.model.change import ChangeAnswer, ChangeSet, Fence, PathChange
from instep.model.ids import EMPTY_DIGEST, Digest, FilesetName, LineId, NodeName
from instep.model.lock import LockAnswer, LockGranted, LockOwner
from instep.model.manifest.entry import Entry, Kind
from instep.testing.changes.home_disk import HomeDisk
from tests.support.vectors import digest

LINE = LineId(FilesetName("catalog"), NodeName("main"))
MAIN, S1, S2 = NodeName("main"), NodeName("s1"), NodeName("s2")
ANA, BOB = LockOwner(S1, "ana", "edit"), LockOwner(S2, "bob", "edit")
DAY_MS = 86_400_000
WALL_MS = 20_000 * DAY_MS


def a_file(path: bytes, text: str, **fields: Any) -> Entry:
    return Entry(path, Kind.FILE, 0o644, len(text), fields.get("mtime_ns", 1), digest(text), 0)


def a_dir(path: bytes) -> Entry:
    return Entry(path, Kind.DIR, 0o755, 0, 0, EMPTY_DIGEST, 0)


def change(path: bytes, base: str | None, new: str | None) -> PathChange:
    return PathChange(
        path, None if base is None else a_file(path, base), None if new is None else a_file(path, new)
    )


class PowerLost(Exception):
    """The home ends here; its disk stays."""


class ChangeHome:
    """``power`` counts the effects and steps that are still carried out; None: all."""

    def __init__(self, **config: Any) -> None:
        self.config = HomeConfig(MAIN, offers_from=(S1, S2), **config)
        self.disk = HomeDisk()
        self.disk.tick = self._use_power
        self.disk.tree = {path: a_file(path, "old") for path in (b"a", b"b", b"c")}
        self.disk.publish()
        self.power: int | None = None
        self.now, self.wall = 1_000, WALL_MS
        self.boot_id = "boot 1"
        self.epoch = 1
        self.effects: list[Any] = []
        self.heard: list[tuple[Any, int, int]] = []
        self.replies: dict[int, Any] = {}
        self.timers: dict[str, int] = {}
        self.held: dict[type, bool] = {}
        """Effects that are not answered by themselves."""
        self._inbox: deque[Any] = deque()
        self._asked = 0
        self._nonce = 0
        self.start()

    def start(self) -> None:
        self.timers.clear()
        self._inbox.clear()
        self.machine = HomeMachine(LINE, self.config, Random(1), self.disk.facts)
        self.disk.deletions = self.config.deletions
        entries = len(self.disk.published[-1])
        self.say(h.HomeStarted(self.boot_id, self.epoch, self.disk.head, entries))

    def reboot(self, *, later_ms: int = 0) -> None:
        """Another boot: its clock begins anew."""
        self.boot_id += "'"
        self.now = later_ms
        self.start()

    def say(self, *events: Any) -> None:
        self._inbox.extend(events)
        while self._inbox:
            self.disk.now_ms = self.now
            event = self._inbox.popleft()
            self.heard.append((event, self.now, self.wall))
            for effect in self.machine.step(event, self.now, self.wall):
                self.effects.append(effect)
                self._use_power()
                self._perform(effect)

    def _use_power(self) -> None:
        if self.power is not None:
            if not self.power:
                raise PowerLost
            self.power -= 1

    def _perform(self, effect: Any) -> None:
        if isinstance(effect, w.SetTimer):
            if effect.at_ms is None:
                self.timers.pop(effect.name, None)
            else:
                self.timers[effect.name] = effect.at_ms
        elif isinstance(effect, h.ReplyLock | h.ReplyChange | h.ReplyNotTaken):
            assert effect.req not in self.replies, "a request is answered once"
            self.replies[effect.req] = getattr(effect, "answer", None) or effect.trouble  # type: ignore[union-attr]
        elif type(effect) in self.held:
            pass
        elif isinstance(effect, h.FetchOffered):
            self._inbox.append(h.ContentsHere(effect.req))
        else:
            answer = self.disk.perform(effect)
            if answer is not None:
                self._inbox.append(answer)

    def pass_time(self, by_ms: int) -> None:
        """Timers fire on the way."""
        until = self.now + by_ms
        self.wall += by_ms
        while (due := min(self.timers.items(), key=lambda each: each[1], default=None)) and due[1] <= until:
            del self.timers[due[0]]
            self.now = max(self.now, due[1])
            self.say(w.TimerFired(due[0]))
        self.now = until

    def last(self, kind: type) -> Any:
        """The newest effect of this kind."""
        return next(effect for effect in reversed(self.effects) if isinstance(effect, kind))

    # --- what partners ask ------------------------------------------------------------------------------------

    def ask(self, make: Any) -> Any:
        """The reply to a request; None when none is here yet. ``make`` gets the number of the request."""
        self._asked += 1
        self.say(make(self._asked))
        return self.replies.get(self._asked)

    def lock(
        self,
        owner: LockOwner,
        path: bytes = b"a",
        seen: str | None = "old",
        ttl_ms: int = 60_000,
        reason: str = "",
    ) -> LockAnswer:
        base = EMPTY_DIGEST if seen is None else digest(seen)
        lock_id = self._asked.to_bytes(16, "big")
        answer: LockAnswer = self.ask(
            lambda req: h.LockAsked(req, owner.node, owner, path, base, ttl_ms, lock_id, reason)
        )
        return answer

    def granted(self, owner: LockOwner, path: bytes = b"a", **wanted: Any) -> Fence:
        answer = self.lock(owner, path, **wanted)
        assert isinstance(answer, LockGranted), answer
        return answer.fence

    def change_set(self, *changes: PathChange, **fields: Any) -> ChangeSet:
        self._nonce += 1
        return ChangeSet(
            1, LINE.fileset, LINE.origin, self._nonce.to_bytes(16, "big"), "ana", "", fields.pop("made_at_ms", self.wall),
            changes, **fields,
        )  # fmt: skip

    def submit(
        self,
        change_set: ChangeSet,
        source: NodeName = S1,
        *,
        releases: bool = False,
        accepts_deletions: bool = False,
    ) -> Any:
        submission = Submission(source, change_set, releases, accepts_deletions)
        return self.ask(lambda req: h.Submitted(req, submission))

    def changes(
        self,
        *changes: PathChange,
        source: NodeName = S1,
        releases: bool = False,
        accepts_deletions: bool = False,
        **fields: Any,
    ) -> list[str]:
        """Submit and return the kinds of the outcomes."""
        change_set = self.change_set(*changes, **fields)
        return kinds(self.submit(change_set, source, releases=releases, accepts_deletions=accepts_deletions))

    def text(self, path: bytes) -> Digest | None:
        entry = self.disk.tree.get(path)
        return None if entry is None else entry.digest


def kinds(answer: Any) -> list[str]:
    assert isinstance(answer, ChangeAnswer), answer
    return [outcome.kind.value for outcome in answer.outcomes]
