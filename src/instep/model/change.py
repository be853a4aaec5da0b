"""Change sets: changes of single paths that a node asks the home of a line to make, and the home's answer.

Implements the sections "Change sets" and "Answers" of ``docs/spec/changes.md``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Annotated

import msgspec
from blake3 import blake3
from msgspec import Meta

from instep.errors import PeerError
from instep.model.counts import counted
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import DIGEST_BYTES, Count, Digest, FilesetName, HeadRef, LineId, NodeName
from instep.model.manifest.entry import (
    CHUNKED_OVER,
    Entry,
    Extra,
    Kind,
    same_but_for_times_of_directories,
    without_chunks,
)
from instep.model.manifest.entry_rules import check_entry, rising_keys
from instep.model.paths import is_below, shown, sort_key, validated

_DOMAIN = b"instep change set 1\0"
CHANGE_SET_VERSION = 1
CHANGES_MAX = 65_536
CHANGE_SET_MAX_BYTES = 16 << 20
NONCE_BYTES = 16
LOCK_ID_BYTES = 16
AUTHOR_MAX_BYTES = 256
MESSAGE_MAX_BYTES = 4096


class Fence(msgspec.Struct, frozen=True, array_like=True):
    """The fencing token of one grant of a lock. ``counter`` rises with each grant of the line; ``lock_id`` is random,
    so that a home which lost its state never honours a token that it does not remember."""

    epoch: Count
    counter: Count
    lock_id: bytes

    def __str__(self) -> str:
        return f"{self.epoch}.{self.counter}.{self.lock_id.hex()}"


def fence_of(text: str) -> Fence | None:
    """The token that ``str`` of a fence wrote; None when the text is none."""
    parts = text.split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts[:2]):
        return None
    try:
        fence = Fence(int(parts[0]), int(parts[1]), bytes.fromhex(parts[2]))
    except ValueError:
        return None
    return fence if str(fence) == text and len(fence.lock_id) == LOCK_ID_BYTES else None


class PathChange(msgspec.Struct, frozen=True, array_like=True):
    """One path: ``base`` is the entry that the author of the change saw there, ``new`` the entry that is to come.
    None: the path is absent."""

    path: bytes
    base: Entry | None
    new: Entry | None


class ChangeSet(msgspec.Struct, frozen=True, array_like=True):
    """Changes that are submitted in one act. ``token`` is that of the lock under which they were made. ``whole``: all
    of them are made or none, else each path by itself. ``nonce`` is random, so that equal changes made twice are two
    change sets. ``made_at_ms`` is the author's wall clock: a home refuses a set that is older than its memory of
    answered sets."""

    version: int
    fileset: FilesetName
    origin: NodeName
    nonce: bytes
    author: str
    message: str
    made_at_ms: Count
    changes: Annotated[tuple[PathChange, ...], Meta(max_length=CHANGES_MAX)]
    token: Fence | None = None
    whole: bool = False

    @property
    def line(self) -> LineId:
        return LineId(self.fileset, self.origin)

    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @property
    def id(self) -> Digest:
        return change_set_id(self.encoded())


def author_from(source: NodeName, author: str) -> str:
    """An author as another node names it, behind the name that the certificate of that node says."""
    if author in ("", source):
        return source
    return f"{source}: {author}".encode("utf-8", "replace")[:AUTHOR_MAX_BYTES].decode("utf-8", "ignore")


def change_set_id(raw: bytes) -> Digest:
    """The id of an encoded change set: the home applies an id once."""
    return Digest(blake3(_DOMAIN + raw).digest())


def change_set_of(raw: bytes) -> ChangeSet:
    """The change set that a peer sent; ``PeerError`` when it is not canonical or breaks a rule."""
    if len(raw) > CHANGE_SET_MAX_BYTES:
        raise _bad(f"takes {len(raw)} bytes, the limit is {CHANGE_SET_MAX_BYTES}")
    try:
        change_set = msgspec.msgpack.decode(raw, type=ChangeSet)
    except DECODE_ERRORS as error:
        raise _bad(f"cannot be decoded: {error}") from error
    check_change_set(change_set)
    if change_set.encoded() != raw:
        raise _bad("is not in canonical form")
    return change_set


def check_change_set(change_set: ChangeSet) -> None:
    """Refuse a change set that breaks a rule of ``docs/spec/changes.md`` (``PeerError``)."""
    if change_set.version != CHANGE_SET_VERSION:
        raise _bad(f"has version {change_set.version}, this node knows {CHANGE_SET_VERSION}")
    if len(change_set.nonce) != NONCE_BYTES:
        raise _bad(f"has a nonce of {len(change_set.nonce)} bytes, it must have {NONCE_BYTES}")
    for what, text, most in (
        ("an author", change_set.author, AUTHOR_MAX_BYTES),
        ("a message", change_set.message, MESSAGE_MAX_BYTES),
    ):
        if len(text.encode("utf-8", "surrogatepass")) > most:
            raise _bad(f"has {what} of more than {most} bytes")
    if change_set.token is not None and len(change_set.token.lock_id) != LOCK_ID_BYTES:
        raise _bad(f"has a token whose lock id has not {LOCK_ID_BYTES} bytes")
    if not 1 <= len(change_set.changes) <= CHANGES_MAX:
        raise _bad(f"has {counted(len(change_set.changes), 'change')}, 1 to {CHANGES_MAX} are taken")
    for change in change_set.changes:
        _check_change(change)
    if not rising_keys([sort_key(change.path) for change in change_set.changes]):
        raise _bad("has paths that do not rise")
    _check_places(change_set.changes)


def _check_change(change: PathChange) -> None:
    validated(change.path)
    if change.base is None and change.new is None:
        raise _bad(f"changes nothing at {shown(change.path)}")
    for entry in (change.base, change.new):
        if entry is None:
            continue
        if entry.path != change.path:
            raise _bad(f"has an entry of {shown(entry.path)} at {shown(change.path)}")
        check_changed_entry(entry)


def check_changed_entry(entry: Entry) -> None:
    """Refuse an entry that breaks a rule of its own (``PeerError``). Other than in a manifest, a large file may come
    without its chunk list, which its contents determine."""
    extra = entry.extra or Extra()
    if entry.kind is Kind.FILE and entry.size > CHUNKED_OVER and extra.chunks is None:
        entry = _with_chunks(entry, extra)
    check_entry(entry)


def _with_chunks(entry: Entry, extra: Extra) -> Entry:
    return msgspec.structs.replace(
        entry, extra=msgspec.structs.replace(extra, chunks=Digest(bytes(DIGEST_BYTES)))
    )


def _check_places(changes: tuple[PathChange, ...]) -> None:
    """Nothing is put below a path that the same set leaves without a directory."""
    above: list[PathChange] = []
    for change in changes:
        while above and not is_below(change.path, above[-1].path):
            above.pop()
        if change.new is not None and above:
            raise _bad(
                f"puts {shown(change.path)} below {shown(above[-1].path)}, which is no directory after it"
            )
        if change.new is None or change.new.kind is not Kind.DIR:
            above.append(change)


def _bad(why: str) -> PeerError:
    return PeerError(f"change set {why}", code="bad_change_set")


def is_alike(one: Entry | None, other: Entry | None) -> bool:
    """Whether a path is the same in both: absent in both, or equal but for birth, chunk list and times of
    directories. A change is made only where its base and the live path are alike."""
    if one is None or other is None:
        return one is other
    return same_but_for_times_of_directories(without_chunks(one), without_chunks(other))


def is_same_file(one: Entry | None, other: Entry | None) -> bool:
    """Alike but for owners and extended attributes, which not every node can keep or may set."""
    if one is None or other is None:
        return one is other
    return is_alike(msgspec.structs.replace(one, extra=None), msgspec.structs.replace(other, extra=None))


def wanted_contents(change_set: ChangeSet) -> tuple[tuple[Digest, int], ...]:
    """The contents that the changes bring, as (digest, size), each once, in the order of the changes: bytes of files,
    targets of symlinks, large extended attributes."""
    found: dict[Digest, int] = {}
    for change in change_set.changes:
        for digest, size in _contents_of(change.new):
            found.setdefault(digest, size)
    return tuple(found.items())


def _contents_of(entry: Entry | None) -> Iterator[tuple[Digest, int]]:
    if entry is None:
        return
    if len(entry.digest) == DIGEST_BYTES:
        yield entry.digest, entry.size
    if entry.extra is not None:
        for _, digest, size in entry.extra.large_xattrs:
            yield digest, size


# --- the home's answer --------------------------------------------------------------------------------------------


class OutcomeKind(enum.Enum):
    """What became of the change of one path."""

    APPLIED = "applied"
    SAME = "same"
    """The live path was already as the change wants it."""
    OUTDATED = "outdated"
    """The live path is not the base: it was changed meanwhile. Nothing was changed here."""
    LOCKED = "locked"
    """Another owner holds the lock of this path, or of one that the change would take away."""
    EXPIRED = "expired"
    """Outdated, and made under a lock that had ended before."""
    REFUSED = "refused"
    """A rule of the home says no, by ``code``."""


class PathOutcome(msgspec.Struct, frozen=True, array_like=True):
    """``entry`` is the live one when the change was outdated or expired (None: absent), and after a change that was
    made, where the home could not make it exactly so, as with an owner that it may not set (None: exactly so).
    ``owner`` and ``left_ms`` say who holds the lock and how long it lasts at most, from the moment of sending, unless
    it is refreshed. ``code`` and ``reason`` say why a change was refused, or why the lock had ended."""

    path: bytes
    kind: OutcomeKind
    entry: Entry | None = None
    owner: str = ""
    left_ms: Count = 0
    code: str = ""
    reason: str = ""

    @property
    def is_made(self) -> bool:
        """Whether the live path is now as the change wanted it."""
        return self.kind in (OutcomeKind.APPLIED, OutcomeKind.SAME)


class ChangeAnswer(msgspec.Struct, frozen=True, array_like=True):
    """The home's final answer to one change set: an outcome for every path, in the order of the set. It is remembered
    and given again for the same id. ``head`` is the generation that has the made changes; None when nothing was made,
    or when the home holds its publish back, for ``reason``."""

    id: Digest
    outcomes: tuple[PathOutcome, ...]
    head: HeadRef | None = None
    reason: str = ""
    above: HeadRef | None = None
    """Of changes whose publish is held back: they come with a generation above this one, or were changed again
    before."""

    @property
    def made(self) -> tuple[bytes, ...]:
        """The paths that are as the change set wanted them."""
        return tuple(outcome.path for outcome in self.outcomes if outcome.is_made)
