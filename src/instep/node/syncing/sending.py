"""The changes of one round, sent to the homes: to both at once, where both get some.

What one side gives is read from the tree that the run looked at. So no home changes its tree before the contents that
come from it are sent: first this home receives from the other one, then the other one from here, then both make their
changes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from itertools import chain

from instep.core.sync.answers import confirmed
from instep.core.sync.table import Side
from instep.core.sync.work import SideChanges, SyncWork
from instep.errors import InstepError, UnavailableError
from instep.model.change import CHANGE_SET_VERSION, NONCE_BYTES, ChangeAnswer, ChangeSet, wanted_contents
from instep.model.ids import Digest, HeadRef
from instep.model.manifest.entry import Entry
from instep.model.manifest.pages import GetPage
from instep.model.manifest.walk import Reader
from instep.net.transfer import TransferAnswer
from instep.node.runtime.driver import wall_ms
from instep.node.syncing.merging import Merging
from instep.node.syncing.sides import FarHome, NearHome, SeenTree, SyncHome
from instep.tree.root.failpoints import failpoint, register

ANSWERED = register("sync.answered")
"""One home answered; where both were asked, the other one may still be at work."""
_GAVE_UP = "other_side_failed"
_Sizes = list[tuple[Digest, int]]


class _Gate:
    """Opens once, or is shut for good because what it waits for failed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._is_open = False

    def open(self) -> None:
        self._is_open = True
        self._event.set()

    def shut(self) -> None:
        self._event.set()

    async def passed(self) -> None:
        await self._event.wait()
        if not self._is_open:
            raise UnavailableError("the other home did not get its contents", code=_GAVE_UP)


class _Crossing:
    """``came``: this home has received all that it lacked. ``went``: all that the other one lacked was read here."""

    def __init__(self) -> None:
        self.came, self.went = _Gate(), _Gate()


class Sending:
    """Of one run. ``near_side`` is the side of this node; ``page`` gets pages of both sides, and ``note_set`` the id of
    each set before it is sent."""

    def __init__(
        self,
        profile: str,
        near: NearHome,
        far: FarHome,
        near_side: Side,
        merging: Merging,
        work: SyncWork,
        page: GetPage,
        note_set: Callable[[Side, Digest], None],
    ) -> None:
        self._profile = profile
        self._page, self._note_set = page, note_set
        self._near, self._far, self._near_side = near, far, near_side
        self._merging = merging
        self._work = work

    async def send(
        self, parts: Sequence[SideChanges], trees: Mapping[Side, SeenTree]
    ) -> tuple[ChangeAnswer, ...]:
        """The answers of the homes, in the order of ``parts``; ``trees`` are the sides as the plan saw them. Where one
        home fails, the other one is waited for."""
        crossing = _Crossing()
        sides = {part.side for part in parts}
        if self._near_side not in sides:
            crossing.came.open()
        if len(sides) == 1 and self._near_side in sides:
            crossing.went.open()
        found = await asyncio.gather(
            *(self._sent(part, trees, crossing) for part in parts), return_exceptions=True
        )
        failed = [each for each in found if isinstance(each, BaseException)]
        if failed:
            raise min(failed, key=_gave_up)
        return tuple(each for each in found if isinstance(each, ChangeAnswer))

    async def _sent(
        self, part: SideChanges, trees: Mapping[Side, SeenTree], crossing: _Crossing
    ) -> ChangeAnswer:
        is_near = part.side is self._near_side
        own, giver = trees[part.side], trees[Side.RIGHT if part.side is Side.LEFT else Side.LEFT]
        gate = crossing.came if is_near else crossing.went
        try:
            if is_near:
                answer, changes = await self._to_near(part, giver, crossing)
            else:
                answer, changes = await self._to_far(part, own, giver, crossing)
        except BaseException:
            gate.shut()
            raise
        gate.open()  # a home that decides without the contents never asked for them
        if answer.head is not None:
            answer = await asyncio.to_thread(confirmed, changes, answer, self._entries_of(answer.head))
        failpoint(ANSWERED)
        return answer

    async def _to_near(
        self, part: SideChanges, giver: SeenTree, crossing: _Crossing
    ) -> tuple[ChangeAnswer, ChangeSet]:
        changes = self._set_of(part, self._near)
        self._note_set(part.side, changes.id)
        given, made = await self._absent(self._near, changes)
        sources = [self._source(part, digest) for digest, _ in given]
        own = self._merging.contents([digest for digest, _ in made], len(given))
        if not given and not made:
            crossing.came.open()
            await crossing.went.passed()
        contents = _until_all_went(_with_own(self._far.contents(giver, sources), own), crossing)
        accepts = self._work.accepts_deletions
        return await self._near.take(changes, given + made, contents, accepts_deletions=accepts), changes

    async def _to_far(
        self, part: SideChanges, own: SeenTree, giver: SeenTree, crossing: _Crossing
    ) -> tuple[ChangeAnswer, ChangeSet]:
        await crossing.came.passed()
        changes = self._set_of(part, self._far)
        self._note_set(part.side, changes.id)
        given, made = await self._absent(self._far, changes)
        sources = [self._source(part, digest) for digest, _ in given]
        merged = self._merging.contents([digest for digest, _ in made], len(given))
        went = partial(asyncio.get_running_loop().call_soon_threadsafe, crossing.went.open)
        if not given and not made:
            crossing.went.open()
        contents = _with_end(chain(self._near.contents(giver, sources), merged), went)
        accepts = self._work.accepts_deletions
        answer = await self._far.take(changes, given + made, contents, accepts_deletions=accepts, known=own)
        return answer, changes

    def _set_of(self, part: SideChanges, home: SyncHome) -> ChangeSet:
        line, work = home.line, self._work
        return ChangeSet(
            CHANGE_SET_VERSION,
            line.fileset,
            line.origin,
            secrets.token_bytes(NONCE_BYTES),
            work.author,
            work.message,
            wall_ms(),
            part.changes,
        )

    async def _absent(self, home: SyncHome, changes: ChangeSet) -> tuple[_Sizes, _Sizes]:
        """The contents that the home lacks: those that the other side gives, and those that were merged here."""
        wanted = wanted_contents(changes)
        absent = [wanted[at] for at in await home.missing(wanted)] if wanted else []
        made = [each for each in absent if self._merging.has(each[0])]
        return [each for each in absent if not self._merging.has(each[0])], made

    def _source(self, part: SideChanges, digest: Digest) -> Entry:
        found = part.sources.get(digest)
        if found is None:
            raise UnavailableError(
                "a content is on neither side any more",
                hint=f"start the run again: instep sync run {self._profile}",
                code="contents_missing",
                digest=digest.hex(),
            )
        return found

    def _entries_of(self, head: HeadRef) -> Callable[[bytes], Entry | None]:
        reader = Reader(self._page)
        return lambda path: reader.lookup(head.root, path)


def _gave_up(error: BaseException) -> bool:
    """Whether a home was not sent its changes because the other one failed."""
    return isinstance(error, InstepError) and error.error_code == _GAVE_UP


async def _until_all_went(
    contents: AsyncGenerator[list[TransferAnswer], None], crossing: _Crossing
) -> AsyncGenerator[list[TransferAnswer], None]:
    """Ends when the contents for the other home were read, too."""
    async with aclosing(contents):
        async for answers in contents:
            yield answers
    crossing.came.open()
    await crossing.went.passed()


def _with_end(contents: Iterator[TransferAnswer], ended: Callable[[], object]) -> Iterator[TransferAnswer]:
    """The same contents, pulled in a thread; ``ended`` is called as the last is read. Its receiver asks for no more."""
    each = next(contents, None)
    while each is not None:
        following = next(contents, None)
        if following is None:
            ended()
        yield each
        each = following


async def _with_own(
    others: AsyncGenerator[list[TransferAnswer], None], own: Iterator[TransferAnswer]
) -> AsyncGenerator[list[TransferAnswer], None]:
    """The contents of the other side, and then those that were made here."""
    async with aclosing(others):
        async for answers in others:
            yield answers
    while (answer := await asyncio.to_thread(next, own, None)) is not None:
        yield [answer]
