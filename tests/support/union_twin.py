"""A second implementation of the union in ``docs/spec/replication.md``, written from the page and sharing no code with
ours. Slow and plain: every contender is held against every winner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from blake3 import blake3

from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import sort_key
from tests.support import reference

Tree = dict[bytes, Entry]
DIRECTORY = (Kind.DIR, 0o755, 0, 0, b"", 0, None)


class Loser(NamedTuple):
    component: bytes
    origin: str
    born_ms: int | None
    shown: bytes
    tag: str
    entries: int


class Twin(NamedTuple):
    shown: dict[bytes, tuple[Any, ...]]
    """Of each shown path the fields of its entry behind the path."""
    losers: list[Loser]


def is_at_or_below(path: bytes, other: bytes) -> bool:
    return path == other or path.startswith(other + b"/")


def is_related(a: Entry, b: Entry) -> bool:
    upper, lower = sorted((a, b), key=lambda entry: len(entry.path))
    if not is_at_or_below(lower.path, upper.path):
        return False
    return upper.kind is not Kind.DIR or (upper.path == lower.path and lower.kind is not Kind.DIR)


def united(lines: Mapping[Any, Tree], most: int = 50_000) -> Twin:
    outvoted = _files_of_large_components(lines, most)
    winners: list[tuple[str, Entry]] = []
    lost: list[tuple[bytes, str, Entry]] = [(lines[o][p].path, o, lines[o][p]) for o, p in outvoted]
    for _, _, origin, _, entry in sorted(
        (entry.kind is Kind.DIR, 0 if entry.kind is Kind.DIR else entry.born_ms, origin, path, entry)
        for origin, tree in lines.items()
        for path, entry in tree.items()
        if (origin, path) not in outvoted and not _has_entries(tree, path, entry)
    ):
        met = [winner for by, winner in winners if by != origin and is_related(winner, entry)]
        if not met:
            winners.append((origin, entry))
            continue
        above = [winner.path for winner in met if is_at_or_below(entry.path, winner.path)]
        lost.append((above[0] if above else entry.path, origin, entry))
    losers = _named(lost, lines)
    shown = {entry.path: _fields(entry) for _, entry in winners}
    for loser in losers:
        for path, entry in lines[loser.origin].items():
            if is_at_or_below(path, loser.component):
                shown[loser.shown + path[len(loser.component) :]] = _fields(entry)
    for path in list(shown):
        while b"/" in path:
            path = path.rpartition(b"/")[0]
            assert shown.setdefault(path, DIRECTORY) == DIRECTORY, "a path below a file"
    return Twin(shown, losers)


def _has_entries(tree: Tree, path: bytes, entry: Entry) -> bool:
    return entry.kind is Kind.DIR and any(each.startswith(path + b"/") for each in tree)


def _files_of_large_components(lines: Mapping[Any, Tree], most: int) -> list[tuple[str, bytes]]:
    outvoted: list[tuple[str, bytes]] = []
    decided: list[bytes] = []
    for path in sorted({path for tree in lines.values() for path in tree}, key=lambda path: path.count(b"/")):
        having = {origin: tree[path] for origin, tree in lines.items() if path in tree}
        files = [origin for origin, entry in having.items() if entry.kind is not Kind.DIR]
        if len(having) < 2 or not files or any(is_at_or_below(path, top) for top in decided):
            continue
        count = sum(is_at_or_below(each, path) for tree in lines.values() for each in tree)
        if len(files) < len(having) and count > most:
            outvoted += [(origin, path) for origin in files]
        else:
            decided.append(path)
    return outvoted


def _named(lost: list[tuple[bytes, str, Entry]], lines: Mapping[Any, Tree]) -> list[Loser]:
    groups: dict[tuple[bytes, bytes, str], list[Entry]] = {}
    for component, origin, entry in lost:
        groups.setdefault((sort_key(component), component, origin), []).append(entry)
    losers: list[Loser] = []
    for (_, component, origin), entries in sorted(groups.items()):
        is_itself = entries[0].path == component and entries[0].kind is not Kind.DIR
        born_ms = entries[0].born_ms if is_itself else None
        hashed = blake3(b"instep collision 1\0" + reference.pack([component, origin, born_ms]))
        tried = 0
        while True:
            tag = hashed.digest(length=4 * tried + 4)[-4:].hex()
            shown = name(component, origin, tag)
            if not any(shown in tree for tree in lines.values()) and not any(
                loser.shown == shown for loser in losers
            ):
                break
            tried += 1
        losers.append(Loser(component, origin, born_ms, shown, tag, len(entries)))
    return losers


def name(component: bytes, origin: str, tag: str) -> bytes:
    folder, last = component[: component.rfind(b"/") + 1], component[component.rfind(b"/") + 1 :]
    dot = last.rfind(b".")
    stem, tail = (last[:dot], last[dot:]) if dot > 0 and len(last) - dot <= 17 else (last, b"")
    end = f".collision-{origin}-{tag}".encode() + tail
    cut = stem[: 255 - len(end)]
    if cut != stem:
        for fewer in range(4):  # a character that was cut in two goes
            try:
                stem[: len(cut) - fewer].decode()
            except UnicodeDecodeError:
                continue
            cut = stem[: len(cut) - fewer]
            break
    return folder + cut + end


def _fields(entry: Entry) -> tuple[Any, ...]:
    if entry.kind is Kind.DIR:
        return DIRECTORY
    return (entry.kind, entry.mode, entry.size, entry.mtime_ns, entry.digest, entry.born_ms, entry.extra)
