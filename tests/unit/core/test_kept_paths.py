"""A stage beside paths that were offered: no step touches them, and the base stays a manifest."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from instep.core.follow.kept_paths import as_in
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import build, diff, iterate
from instep.model.paths import is_below, parent_of, sort_key

_NAMES = (b"a", b"b", b"d", b"d/x", b"d/y", b"e", b"e/z")


def _entry(path: bytes, what: int) -> Entry:
    if what == 0:
        return Entry(path, Kind.DIR, 0o755, 0, 1, Digest(b""), 1)
    return Entry(path, Kind.FILE, 0o644, 1, what, Digest(bytes([what]) * 32), 1)


@st.composite
def _trees(draw: st.DrawFn) -> tuple[Entry, ...]:
    """A small tree: below ``d`` and ``e`` lies something only where they are directories."""
    found: dict[bytes, Entry] = {}
    for path in _NAMES:
        above = parent_of(path)
        if above and (above not in found or found[above].kind is not Kind.DIR):
            continue
        what = draw(st.sampled_from((None, 0, 1, 2, 3) if b"/" not in path else (None, 1, 2, 3)))
        if what is not None:
            found[path] = _entry(path, what)
    return tuple(sorted(found.values(), key=lambda entry: sort_key(entry.path)))


@given(_trees(), _trees(), st.sets(st.sampled_from(_NAMES)))
@settings(max_examples=600, deadline=None)
def test_no_step_touches_a_kept_path_and_every_other_path_arrives(
    held: tuple[Entry, ...], wanted: tuple[Entry, ...], kept: set[bytes]
) -> None:
    """Goal: the steps of a stage are the differences from the base that is made here to the target. None is at a kept
    path, but where a directory that holds more than kept paths ends, or something else lies in its directory's place; all other differences stay; and no entry of the
    base lies below something that is no directory."""
    pages: dict[Digest, bytes] = {}
    get, put = pages.__getitem__, pages.__setitem__
    root, target = build(iter(held), put), build(iter(wanted), put)
    base = as_in(root, target, kept, get, put)
    steps = {change.path for change in diff(base, target, get)}
    all_steps = {change.path for change in diff(root, target, get)}
    ended = {
        entry.path
        for entry in held
        if entry.kind is Kind.DIR
        and not any(other.path == entry.path and other.kind is Kind.DIR for other in wanted)
        and any(is_below(other.path, entry.path) and other.path not in kept for other in held)
    }
    in_the_way = {entry.path for entry in held if entry.kind is not Kind.DIR and entry.path not in kept}
    left_out = {p for p in kept if any(p == top or is_below(p, top) for top in ended | in_the_way)}
    assert steps & kept <= left_out
    above_kept = {parent_of(path) for path in kept}
    assert all_steps - kept - above_kept <= steps <= all_steps
    found = list(iterate(base, get))
    directories = {entry.path for entry in found if entry.kind is Kind.DIR} | {b""}
    assert all(parent_of(entry.path) in directories for entry in found), found
