"""The checkers of changes from elsewhere: H1 to H3, and P5 for edits that lose, seen from outside the machines.

H1: the base of an accepted change is the live entry at that instant. H2: while a lock is promised, nothing of another
owner is accepted at its path. H3: a change set is accepted once, and so is each edit that a person made. P5: what a
person wrote is at the home, in an archive, or replaced by that person. P10: change sets remove nothing that the guard
of the home would stop.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from instep.core.changes import home_vocabulary as h
from instep.core.changes.home_facts import HomeFacts
from instep.model.change import ChangeAnswer, Fence, is_alike
from instep.model.ids import Digest
from instep.model.lock import LockEnd, LockGranted
from instep.model.manifest.entry import Entry
from instep.testing.changes.editor_disk import EditorDisk
from instep.testing.changes.home_disk import Accepted, HomeDisk
from instep.testing.world.world import BrokenPromise

NO_FILE = Digest(b"")


@dataclass(slots=True)
class Promise:
    """A lock that the home granted: until this moment of the world nothing else may change its path."""

    fence: Fence
    until_ms: float


class ChangeLedger:
    """All that was promised and made in one run."""

    def __init__(self, home: HomeDisk) -> None:
        self._home = home
        self._promises: dict[bytes, Promise] = {}
        self._written: Counter[tuple[str, bytes, Digest]] = Counter()
        """How often a person at a node gave a path these contents, or removed it."""
        self._made: Counter[tuple[str, bytes, Digest]] = Counter()
        self._accepted: set[tuple[Digest, bytes]] = set()
        self._arrived: set[Digest] = set()
        """Contents of persons that the home took."""
        self._answers: dict[Digest, ChangeAnswer] = {}
        self.granted = 0
        self.accepted = 0
        self.lost = 0
        self.watch(home)

    def watch(self, home: HomeDisk) -> None:
        self._home = home
        home.on_accept = self.accepts
        home.losses.on_publish = self.publishes

    # --- persons ----------------------------------------------------------------------------------------------

    def writes(self, node: str, path: bytes, entry: Entry | None) -> None:
        self._written[node, path, _digest(entry)] += 1

    def replaced(self, node: str, disk: EditorDisk, path: bytes, here: Entry) -> None:
        """The node lays something else over a file."""
        if not self._written[node, path, here.digest] or here.digest in self._arrived:
            return
        kept = (*disk.archive, *disk.drift_archived)
        if not any(each.digest == here.digest for each in kept):
            raise BrokenPromise("P5", f"what a person wrote at {node} to {path!r} is nowhere any more")
        self.lost += 1

    # --- the home ---------------------------------------------------------------------------------------------

    def accepts(self, accepted: Accepted) -> None:
        change, path = accepted.change, accepted.change.path
        self.accepted += 1
        if not is_alike(accepted.was, change.base):
            raise BrokenPromise("H1", f"{path!r} was changed, and was not what {accepted.source} had seen")
        self._check_promise(accepted)
        if (accepted.id, path) in self._accepted:
            raise BrokenPromise("H3", f"one change set changed {path!r} twice")
        self._accepted.add((accepted.id, path))
        if accepted.source != "main":
            key = (accepted.source, path, _digest(change.new))
            self._made[key] += 1
            if self._made[key] > self._written[key]:
                what = "removal" if change.new is None else "edit"
                raise BrokenPromise(
                    "H3", f"a {what} of {path!r} was made that no person at {accepted.source} made"
                )
        if change.new is not None:
            self._arrived.add(change.new.digest)
        if accepted.was is not None and accepted.was not in self._home.archive:
            raise BrokenPromise("P5", f"the home replaced {path!r} and has no copy of it")

    def publishes(self, is_stopped: bool) -> None:
        if is_stopped:
            raise BrokenPromise("P10", "change sets removed what the home's guard does not publish")

    def _check_promise(self, accepted: Accepted) -> None:
        promise = self._promises.get(accepted.change.path)
        if promise is None or promise.until_ms <= accepted.at_ms:
            return
        token = self._home.kept[accepted.id][0].change_set.token
        if token != promise.fence:
            said = (
                f"{accepted.change.path!r}: {accepted.source} changed it under lock #{promise.fence.counter}"
            )
            raise BrokenPromise("H2", said)

    def replies(self, effect: h.ReplyLock, path: bytes, now_ms: int) -> None:
        if isinstance(effect.answer, LockGranted):
            self.granted += 1
            self._promises[path] = Promise(effect.answer.fence, now_ms + effect.answer.left_ms)

    def answers(self, answer: ChangeAnswer) -> None:
        before = self._answers.setdefault(answer.id, answer)
        if before != answer:
            raise BrokenPromise("H3", "one change set was answered in two ways")

    def saves(self, facts: HomeFacts, now_ms: int) -> None:
        """A lock that ended for a named reason is no promise any more; its time is none before it is over."""
        ended = {each.fence: each.why for each in facts.ended}
        for path, promise in tuple(self._promises.items()):
            why = ended.get(promise.fence)
            if why is LockEnd.LAPSED and now_ms < promise.until_ms:
                raise BrokenPromise(
                    "H2", f"the lock of {path!r} lapsed {promise.until_ms - now_ms:.0f} ms early"
                )
            if why is not None:
                del self._promises[path]

    def restored(self, facts: HomeFacts | None, now_ms: int, home_now_ms: int) -> None:
        """The home's state is older now: it cannot know of newer locks and answers."""
        held = {lock.fence: lock for lock in facts.locks} if facts is not None else {}
        for path, promise in tuple(self._promises.items()):
            lock = held.get(promise.fence)
            if lock is None or lock.deadline_ms - home_now_ms < promise.until_ms - now_ms:
                del self._promises[path]  # The lock, or its last refresh, is newer.
        self._accepted.clear()
        self._answers.clear()
        self._written += self._made


def _digest(entry: Entry | None) -> Digest:
    return NO_FILE if entry is None else entry.digest
