"""Judging a manifest that a peer sent, and finding which of its pages are still missing.

Implements the section "What a receiver checks" of ``docs/spec/manifest.md``. There is one shape for each
set of entries, so the shape is not examined: the entries are read, and must build the very root they came
under. Then the relations between entries remain: parents and hard links.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import msgspec

from instep.errors import PeerError, RefusedError
from instep.model.ids import EMPTY_DIGEST, Digest
from instep.model.manifest.cutter import SPEC, Shape, Stack
from instep.model.manifest.diff import Change, diff
from instep.model.manifest.edit import edit
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.entry_rules import check_entries, not_in_order
from instep.model.manifest.pages import (
    GetPage,
    PutPage,
    decode_inner,
    decode_leaf,
    drop_page,
    expect_level,
    level_of,
    load,
    refuse_empty,
)
from instep.model.manifest.walk import Reader, totals
from instep.model.paths import is_below, parent_of, shown, sort_key, validated

INCREMENTAL_MIN, INCREMENTAL_MAX, INCREMENTAL_SHARE = 1_000, 50_000, 100
"""``check_diff`` reads the whole tree when more than one entry in ``INCREMENTAL_SHARE`` changed, within these
bounds: by then that is quicker, and it streams where changes are held."""


def check_tree(root: Digest, get: GetPage, shape: Shape = SPEC) -> None:
    """Refuse (``PeerError``) a manifest that breaks any rule. Streams the whole of it: one open page a
    level, about a second and a half for 1,000,000 entries."""
    stack = Stack(drop_page, shape)
    leaves = stack.leaves
    reader = Reader(get, trusted=False)
    directories: list[bytes] = []
    last = b""
    level = level_of(load(root, get))
    for entries in _leaves(root, level, get):
        if level:
            refuse_empty(entries)
        for entry in entries:
            _check_under(entry, directories)
            if entry.extra is not None and entry.extra.link_group is not None:
                _check_link(entry, entry.extra.link_group, root, reader)
        if entries:
            first = entries[0].path
            if sort_key(first) <= last:
                raise not_in_order(first)
            last = sort_key(entries[-1].path)
        if leaves.items:
            raise PeerError("a leaf ends too early", code="bad_shape", path=shown(leaves.items[-1].path))
        with _refused_of_a_peer():
            for entry in entries:
                leaves.add(entry)
            leaves.close(final=False)
    with _refused_of_a_peer():
        built = stack.finish()
    if built != root:
        raise _wrong_shape(root, built)


def build_difference(
    old: Digest,
    new: Digest,
    entries: Sequence[Entry],
    removed: Sequence[bytes],
    get: GetPage,
    put: PutPage,
    shape: Shape = SPEC,
) -> None:
    """Put the pages of ``new`` that ``old`` lacks. A peer said that it has these entries where ``old`` has others or
    none, and none at the removed paths; ``PeerError`` when that breaks a rule or makes another manifest. ``old`` was
    checked before."""
    check_entries(entries)
    for path in removed:
        validated(path)
    named: list[tuple[bytes, Entry | None]] = [(entry.path, entry) for entry in entries]
    named = sorted([*named, *((path, None) for path in removed)], key=lambda each: sort_key(each[0]))
    for before, after in pairwise(named):
        if before[0] == after[0]:
            raise not_in_order(after[0])
    made: dict[Digest, bytes] = {}
    with _refused_of_a_peer():
        built = edit(old, named, get, made.__setitem__, shape)
    if built != new:
        raise _wrong_shape(new, built)

    def found(digest: Digest) -> bytes:
        return made.get(digest) or get(digest)

    before_it = Reader(get)
    changes = [Change(path, before_it.lookup(old, path), entry, EMPTY_DIGEST, 0) for path, entry in named]
    if any(_moves_a_link_group(change) for change in changes):
        check_tree(new, found, shape)
    else:
        _check_relations(changes, new, Reader(found))
    for digest, raw in made.items():
        put(digest, raw)


def check_diff(old: Digest, new: Digest, get: GetPage, shape: Shape = SPEC) -> None:
    """As ``check_tree(new)``, where ``old`` was checked before: reads only what differs. Sound because
    ``old`` with the differences must build the very root ``new``."""
    if old == new:
        return
    changes: list[Change] = []
    most = min(max(INCREMENTAL_MIN, totals(old, get).entries // INCREMENTAL_SHARE), INCREMENTAL_MAX)
    last = b""
    for change in diff(old, new, get, trusted=False):
        key = sort_key(change.path)
        if key <= last:
            raise not_in_order(change.path)
        last = key
        changes.append(change)
        if len(changes) > most or _moves_a_link_group(change):
            check_tree(new, get, shape)
            return
    with _refused_of_a_peer():
        built = edit(old, [(change.path, change.new) for change in changes], get, drop_page, shape)
    if built != new:
        raise _wrong_shape(new, built)
    _check_relations(changes, new, Reader(get))


@contextmanager
def _refused_of_a_peer() -> Iterator[None]:
    """The refusal of a manifest that this node would build is its sender's fault here."""
    try:
        yield
    except RefusedError as error:
        raise PeerError(error.reason, code=error.error_code) from error


def _wrong_shape(root: Digest, built: Digest) -> PeerError:
    return PeerError(
        "the pages of this manifest are not the ones that its entries make",
        code="bad_shape",
        root=root.hex(),
        built=built.hex(),
    )


def _leaves(digest: Digest, level: int, get: GetPage) -> Iterator[list[Entry]]:
    raw = load(digest, get)
    expect_level(raw, level)
    if not level:
        yield decode_leaf(raw)
        return
    for child in decode_inner(raw):
        yield from _leaves(child.digest, level - 1, get)


def _check_under(entry: Entry, directories: list[bytes]) -> None:
    """Refuse an entry whose parent is not the directory that is open; ``directories`` are the open ones,
    outermost first."""
    path = entry.path
    parent = parent_of(path)
    while directories and directories[-1] != parent and not is_below(parent, directories[-1]):
        directories.pop()
    if parent != (directories[-1] if directories else b""):
        raise _no_parent(path)
    if entry.kind is Kind.DIR:
        directories.append(path)


def _no_parent(path: bytes) -> PeerError:
    return PeerError(
        f"the parent of {shown(path)} is not a directory of this manifest",
        code="bad_parent",
        path=shown(path),
    )


def _check_link(entry: Entry, leader_path: bytes, root: Digest, reader: Reader) -> None:
    """Refuse an entry that claims to be a hard link of something else than itself."""
    leader = entry if leader_path == entry.path else reader.lookup(root, leader_path)
    if leader is None or (msgspec.structs.replace(leader, path=entry.path, born_ms=entry.born_ms) != entry):
        raise PeerError(
            f"{shown(entry.path)} is said to be a hard link of {shown(leader_path)}, which is not the same",
            code="bad_link_group",
            path=shown(entry.path),
            leader=shown(leader_path),
        )


def _moves_a_link_group(change: Change) -> bool:
    """Whether the first path of a hard-link group changes: its unchanged members then need a look too."""
    old = change.old
    return old is not None and old.extra is not None and old.extra.link_group == change.path


def _check_relations(changes: Sequence[Change], root: Digest, reader: Reader) -> None:
    """Check the relations of changed entries and the unchanged ones around them. ``root`` is known to be
    the canonical tree of valid entries."""
    good_parent: bytes | None = None
    emptied: bytes | None = None
    for change in changes:
        path, entry = change.path, change.new
        if entry is not None:
            parent = parent_of(path)
            if parent and parent != good_parent:
                found = reader.lookup(root, parent)
                if found is None or found.kind is not Kind.DIR:
                    raise _no_parent(path)
                good_parent = parent
            if entry.extra is not None and entry.extra.link_group is not None:
                _check_link(entry, entry.extra.link_group, root, reader)
        was_directory = change.old is not None and change.old.kind is Kind.DIR
        if was_directory and (entry is None or entry.kind is not Kind.DIR):
            if emptied is not None and is_below(path, emptied):
                continue
            following = reader.first_after(root, path)
            if following is not None and is_below(following.path, path):
                raise _no_parent(following.path)
            emptied = path


def missing(
    root: Digest,
    get_or_none: Callable[[Digest], bytes | None],
    *,
    complete: Digest | None = None,
    has: Callable[[Digest], bool] | None = None,
) -> list[Digest]:
    """The pages of ``root`` to fetch next: missing pages that are named by present ones. Empty when all are here; to
    be called again after each round, of which there is one a level.

    ``complete`` is a root all of whose pages are here; pages that both have in common are not read. ``has`` is a
    cheaper way to ask for leaves, which are never read here."""
    present = has or (lambda digest: get_or_none(digest) is not None)
    top = get_or_none(root)
    if top is None:
        return [root]
    top_level = level_of(top)
    known_raw = get_or_none(complete) if complete is not None else None
    known_level = level_of(known_raw) if known_raw is not None else -1
    absent: list[Digest] = []
    wanted: list[Digest] = []
    known: list[Digest] = []
    for level in range(max(top_level, known_level), -1, -1):
        if level == top_level:
            wanted.append(root)
        if level == known_level and complete is not None:
            known.append(complete)
        shared = set(wanted).intersection(known)
        wanted = [digest for digest in dict.fromkeys(wanted) if digest not in shared]
        if level == 0:
            return absent + [digest for digest in wanted if not present(digest)]
        below: list[Digest] = []
        for digest in wanted:
            raw = get_or_none(digest)
            if raw is None:
                absent.append(digest)
            else:
                expect_level(raw, level)
                below += [child.digest for child in decode_inner(raw)]
        known_below: list[Digest] = []
        for digest in known:
            raw = get_or_none(digest) if digest not in shared else None
            if raw is not None:
                known_below += [child.digest for child in decode_inner(raw, trusted=True)]
        wanted, known = below, known_below
    return absent
