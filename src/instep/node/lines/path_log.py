"""The generations in which one path changed, and the version of it that each node serves. Read from the store alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from msgspec import UNSET
from msgspec.structs import asdict, replace

from instep.api import looking as api
from instep.core.follow.vocabulary import FollowFacts
from instep.core.publish.vocabulary import PublishFacts
from instep.errors import UsageError
from instep.model.generation import SignedGeneration
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.manifest.entry import Entry, Kind, same_but_for_times_of_directories
from instep.model.manifest.manifest import diff, lookup
from instep.model.manifest.pages import GetPage
from instep.model.paths import is_below, path_fields, shown, sort_key
from instep.node.config.loading import load
from instep.node.directory import NodeDirectory
from instep.node.lines.saved_facts import load_facts
from instep.node.lines.snapshot import generation_document, moment, pick_fileset, reports_of
from instep.node.trees.keeping.page_walk import must_have
from instep.node.trees.shown_changes import renamed_files
from instep.store.port import NodeStore
from instep.store.sqlite import SqliteStore
from instep.tree.journal.plan import find_moves

LOG_MAX = 1_000


class _Seen(NamedTuple):
    """A path in one generation; no entry where it is not there."""

    signed: SignedGeneration
    ref: HeadRef
    entry: Entry | None


def path_log(
    store: NodeStore, line: LineId, path: bytes, lives: Mapping[NodeName, HeadRef | None]
) -> api.PathLogDocument:
    """Newest first; a renamed path is followed to its older names. ``UsageError`` when no known generation has it."""
    rows = list(_versions(store.generations(line, LOG_MAX), path, must_have(store.get_page)))
    if not rows:
        raise UsageError(
            f"no generation that is known here has {shown(path)}",
            hint=f"instep log {line.fileset}",
            code="no_path",
        )
    nodes = [
        api.HolderDocument(
            name,
            live.number if live is not None else None,
            next((one.number for one in rows if live is not None and one.number <= live.number), None),
        )
        for name, live in sorted(lives.items())
    ]
    return api.PathLogDocument(
        fileset=line.fileset, generations=tuple(rows), nodes=tuple(nodes), **path_fields(path)
    )


def offline_path_log(directory: Path, fileset: str | None, path: bytes) -> api.PathLogDocument:
    """As the last state and the last reports of partners say."""
    settings = load(directory)
    chosen = pick_fileset(settings, fileset)
    with closing(SqliteStore(NodeDirectory(directory).database)) as store:
        lives = {name: report.live for name, report in reports_of(store, chosen.line).items()}
        facts = load_facts(store, chosen.line)
        lives[settings.name] = (
            facts.head
            if isinstance(facts, PublishFacts)
            else facts.live
            if isinstance(facts, FollowFacts)
            else None
        )
        return path_log(store, chosen.line, path, lives)


def _versions(
    generations: Sequence[SignedGeneration], path: bytes, get: GetPage
) -> Iterator[api.VersionDocument]:
    newer: _Seen | None = None
    for signed in generations:
        ref = signed.ref()
        try:
            seen = _Seen(signed, ref, lookup(ref.root, path, get))
            if newer is not None and _is_other(seen, newer, path, get):
                source = _source(seen, newer, path, get)
                yield _version(newer, path, seen, source)
                if source is not None:
                    path, seen = source, seen._replace(entry=lookup(ref.root, source, get))
            newer = seen
        except KeyError:
            continue  # this node never had the generation whole: the change came by the next one that it had
    if newer is not None and newer.entry is not None:
        yield _version(newer, path, None, None)


def _is_other(old: _Seen, new: _Seen, path: bytes, get: GetPage) -> bool:
    if old.entry is None or new.entry is None:
        return old.entry is not new.entry
    if not same_but_for_times_of_directories(old.entry, new.entry):
        return True
    if new.entry.kind is not Kind.DIR:
        return False
    for change in diff(old.ref.root, new.ref.root, get):
        if is_below(change.path, path):
            return True
        if sort_key(change.path) > sort_key(path) and change.path != path:
            return False
    return False


def _source(old: _Seen, new: _Seen, path: bytes, get: GetPage) -> bytes | None:
    """The older name of a path that is new in ``new``."""
    if old.entry is not None or new.entry is None:
        return None
    moved = find_moves(diff(old.ref.root, new.ref.root, get)).live_path(path)
    return moved or renamed_files(diff(old.ref.root, new.ref.root, get)).get(path)


def _version(new: _Seen, path: bytes, old: _Seen | None, source: bytes | None) -> api.VersionDocument:
    entry = new.entry
    if old is None:
        what = "added" if new.ref.number == 1 else "there"
    elif entry is None:
        what = "removed"
    else:
        what = "renamed" if source is not None else "added" if old.entry is None else "changed"
    is_file = entry is not None and entry.kind is not Kind.DIR
    row = api.VersionDocument(
        **asdict(generation_document(new.signed)),
        path="",
        change=what,
        source=shown(source) if source is not None else UNSET,
        size=entry.size if entry is not None and is_file else UNSET,
        modified_at=moment(entry.mtime_ns // 1_000_000) if entry is not None and is_file else UNSET,
        after=old.ref.number if old is not None and old.ref.number < new.ref.number - 1 else UNSET,
    )
    return replace(row, **path_fields(path))
