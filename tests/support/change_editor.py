"""A node whose tree is edited, beside its home: the real ``OfferMachine`` over a simulated disk, and a link that can be cut."""

from __future__ import annotations

from collections import deque
from typing import Any

from instep.core.changes import home_vocabulary as h
from instep.core.changes import offer_vocabulary as o
from instep.core.changes.home_facts import Submission
from instep.core.changes.offer import OfferMachine
from instep.core.vocabulary import SetTimer, TimerFired, Trouble
from instep.model.change import ChangeAnswer, Fence
from instep.model.ids import EMPTY_DIGEST
from instep.model.lock import LockGone, LockGranted, LockOwner
from instep.testing.changes.editor_disk import EditorDisk
from tests.support.change_home import ANA, LINE, S1, ChangeHome, PowerLost, a_file

CUT = Trouble("cut", "the connection was lost")


class ChangeEditor:
    """``loses``: the home does what it is asked, and its answers are lost. ``power`` as in ``ChangeHome``."""

    def __init__(self, home: ChangeHome, node: str = S1, **config: Any) -> None:
        self.home = home
        self.node = node
        self.config = o.OfferConfig(node=S1.__class__(node), author=node, **config)
        self.disk = EditorDisk()
        self.disk.tree = dict(home.disk.published[-1])
        self.disk.generation = dict(self.disk.tree)
        self.disk.laid = {path: entry.digest for path, entry in self.disk.tree.items()}
        self.disk.head = home.disk.head
        self.power: int | None = None
        self.is_cut = False
        self.loses = False
        self.holds: set[type] = set()
        self.effects: list[Any] = []
        self.heard: list[tuple[Any, int, int]] = []
        self.given: dict[int, o.GiveLockAnswer] = {}
        self.timers: dict[str, int] = {}
        self.boot_id = "boot 1"
        self.starts = 0
        self.clock_behind_ms = 0
        self._inbox: deque[Any] = deque()
        self._asked = 0
        self._heard = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        self.timers.clear()
        self._inbox.clear()
        self.machine = OfferMachine(LINE, self.config, self.disk.facts)
        seed = f"{self.node} {self.starts}".encode()
        self.say(o.OffersStarted(self.boot_id, seed, len(self.disk.generation)), self.disk.reached())
        if not self.is_cut:
            self.say(o.HomeUp())

    def say(self, *events: Any) -> None:
        self._inbox.extend(events)
        while self._inbox:
            self.heard.append((self._inbox.popleft(), self.home.now, self.home.wall - self.clock_behind_ms))
            for effect in self.machine.step(*self.heard[-1]):
                self.effects.append(effect)
                self._use_power()
                answer = self._perform(effect)
                if answer is not None:
                    self._inbox.append(answer)

    def _use_power(self) -> None:
        if self.power is not None:
            if not self.power:
                raise PowerLost
            self.power -= 1

    def _perform(self, effect: Any) -> Any:
        if type(effect) in self.holds:
            return None
        match effect:
            case SetTimer(name, at_ms):
                self.timers.pop(name, None)
                if at_ms is not None:
                    self.timers[name] = at_ms
            case o.GiveLockAnswer(request):
                assert request not in self.given, "a program is answered once"
                self.given[request] = effect
            case o.SubmitOffer(req, _, change_set, releases):
                answer = self._ask(
                    lambda asked: h.Submitted(asked, Submission(self._me, change_set, releases))
                )
                if isinstance(answer, ChangeAnswer):
                    return o.OfferAnswered(req, answer)
                return o.OfferFailed(req, answer)
            case o.AskLock(req):
                answer = self._ask(lambda asked: self._lock_request(asked, effect))
                return (
                    o.LockAskFailed(req, answer)
                    if isinstance(answer, Trouble)
                    else o.LockAnswered(req, answer)
                )
            case o.AskRelease(req, path, fence):
                answer = self._ask(lambda asked: h.ReleaseAsked(asked, self._me, path, fence))
                return (
                    o.LockAskFailed(req, answer)
                    if isinstance(answer, Trouble)
                    else o.LockAnswered(req, answer)
                )
            case _:
                return self.disk.perform(effect)
        return None

    @property
    def _me(self) -> Any:
        return self.config.node

    def _ask(self, make: Any) -> Any:
        if self.is_cut:
            return CUT
        answer = self.home.ask(make)
        return CUT if self.loses else answer

    def _lock_request(self, req: int, effect: o.AskLock) -> Any:
        wanted, lock_id = effect.wanted, req.to_bytes(16, "little")
        if effect.fence is not None:
            return h.RefreshAsked(req, self._me, wanted.path, effect.fence, wanted.ttl_ms)
        if wanted.steals:
            return h.BreakAsked(
                req,
                self._me,
                wanted.owner,
                wanted.path,
                wanted.reason,
                wanted.is_operator,
                True,
                wanted.ttl_ms,
                lock_id,
                wanted.base,
            )
        return h.LockAsked(req, self._me, wanted.owner, wanted.path, wanted.base, wanted.ttl_ms, lock_id)

    # --- what happens at the node -----------------------------------------------------------------------------

    def cut(self) -> None:
        self.is_cut = True
        self.say(o.HomeDown())

    def mend(self) -> None:
        self.is_cut = self.loses = False
        self.say(o.HomeUp())

    def write(self, path: bytes, text: str | None, *, looks: bool = True) -> None:
        self.disk.edit(path, None if text is None else a_file(path, text))
        if looks:
            self.look()

    def look(self) -> None:
        """The follower looks at its tree, and sets aside what is losing."""
        self.say(self.disk.look())
        self.set_aside()

    def set_aside(self) -> None:
        done = self.disk.set_aside()
        if done is not None:
            self.say(done)

    def deliver(self) -> None:
        """The home's newest generation arrives, and word of locks that ended."""
        for effect in self.home.effects[self._heard :]:
            if isinstance(effect, h.TellHolder) and effect.ended.owner.node == self._me:
                ended = effect.ended
                self.say(o.LockNews(ended.path, ended.fence, LockGone(ended.why, ended.by, ended.reason)))
        self._heard = len(self.home.effects)
        head = self.home.disk.publish()
        self.say(self.disk.apply(head, self.home.disk.published[-1]))
        self.look()

    def pass_time(self, by_ms: int) -> None:
        """Timers fire on the way, here and at the home."""
        until = self.home.now + by_ms
        while (due := min(self.timers.items(), key=lambda each: each[1], default=None)) and due[1] <= until:
            del self.timers[due[0]]
            self.home.pass_time(max(0, due[1] - self.home.now))
            self.say(TimerFired(due[0]))
        self.home.pass_time(until - self.home.now)

    # --- programs ---------------------------------------------------------------------------------------------

    def wants(self, path: bytes = b"a", owner: LockOwner = ANA, ttl_ms: int = 60_000, **how: Any) -> Any:
        """The lock that a program here gets, or what it gets instead."""
        self._asked += 1
        here = self.disk.tree.get(path)
        base = EMPTY_DIGEST if here is None else here.digest
        self.say(o.LockWanted(self._asked, owner, path, base, ttl_ms, **how))
        given = self.given.get(self._asked)
        return None if given is None else (given.trouble or given.answer)

    def locks(self, path: bytes = b"a", owner: LockOwner = ANA, **how: Any) -> Fence:
        answer = self.wants(path, owner, **how)
        assert isinstance(answer, LockGranted), answer
        return answer.fence

    def releases(
        self, path: bytes = b"a", owner: LockOwner = ANA, fence: Fence | None = None
    ) -> o.GiveLockAnswer | None:
        self._asked += 1
        self.say(o.ReleaseWanted(self._asked, owner, path, fence, "done"))
        return self.given.get(self._asked)

    # --- what is seen -----------------------------------------------------------------------------------------

    @property
    def states(self) -> dict[bytes, str]:
        return {each.path: each.state.value for each in self.machine.facts.owned}

    @property
    def texts(self) -> dict[bytes, Any]:
        return {path: entry.digest for path, entry in self.disk.tree.items()}

    def count(self, kind: type) -> int:
        return sum(isinstance(effect, kind) for effect in self.effects)

    def last(self, kind: type) -> Any:
        return next(effect for effect in reversed(self.effects) if isinstance(effect, kind))


def beside(**config: Any) -> tuple[ChangeHome, ChangeEditor]:
    """A home, and a node beside it."""
    home = ChangeHome()
    return home, ChangeEditor(home, **config)
