"""Generations as the stream that ``git fast-import`` reads: words and order only, no program and no contents.

One commit a generation, on one branch. Its message ends with trailers that say which generation it is, so that a later
run appends only newer ones. git keeps files, symlinks and the right to execute. Empty directories, times and other
modes stay in the generation, whose digest the trailer names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from instep.model.generation import SignedGeneration
from instep.model.ids import Digest
from instep.model.manifest.diff import Change
from instep.model.manifest.entry import Entry, Kind

BRANCH = "refs/heads/main"
FEATURES = b"feature done\n"
DONE = b"done\n"
CHECKPOINT = b"checkpoint\n"
_REPOSITORY = re.compile(rb"(?:\.git|git~1)[ .]*(?::.*)?", re.IGNORECASE | re.DOTALL)
"""A part of a path that git takes from no tree: its own folder, under each name that a file system may give it."""
_MODULES = re.compile(
    rb"(?:\.gitmodules|gitmod~[1-4]|gi[0-9a-z]{0,4}~[1-9][0-9]*)[ .]*(?::.*)?", re.IGNORECASE | re.DOTALL
)
"""The same for a symlink."""
_TRAILERS = re.compile(r"^Instep-Generation: (\d+)\.(\d+)\nInstep-Root: ([0-9a-f]{64})$", re.MULTILINE)


class ExportedGeneration(NamedTuple):
    """A generation that is a commit already."""

    position: tuple[int, int]
    root: Digest


class CommitChanges(NamedTuple):
    """What a commit changes; ``left_out`` are paths that git takes from no tree."""

    removed: list[bytes]
    files: list[Change]
    left_out: list[bytes]


def written_of(message: str) -> ExportedGeneration | None:
    """The generation of a commit, by its last trailers."""
    found = _TRAILERS.findall(message)
    if not found:
        return None
    epoch, number, root = found[-1]
    return ExportedGeneration((int(epoch), int(number)), Digest(bytes.fromhex(root)))


def commit_changes(changes: Iterable[Change]) -> CommitChanges:
    """The part of a difference that git keeps."""
    found = CommitChanges([], [], [])
    for change in changes:
        old, new = _kept(change.old), _kept(change.new)
        if change.new is not None and change.new.kind is not Kind.DIR and new is None:
            found.left_out.append(change.path)
        if new is None and old is not None:
            found.removed.append(change.path)
        elif new is not None and (old is None or _of_git(old) != _of_git(new)):
            found.files.append(change)
    return found


def _kept(entry: Entry | None) -> Entry | None:
    if entry is None or entry.kind is Kind.DIR or is_refused(entry.path, is_link=entry.kind is Kind.SYMLINK):
        return None
    return entry


def is_refused(path: bytes, *, is_link: bool) -> bool:
    """Whether git checks out no tree with this path, by the rules of its ``verify_path`` with ``core.protectNTFS``,
    which is on everywhere: a backslash parts names, too."""
    parts = re.split(rb"[/\\]", path)
    return any(_REPOSITORY.fullmatch(each) or (is_link and _MODULES.fullmatch(each)) for each in parts)


def _of_git(entry: Entry) -> tuple[bytes, Digest]:
    return _mode(entry), entry.digest


def _mode(entry: Entry) -> bytes:
    if entry.kind is Kind.SYMLINK:
        return b"120000"
    return b"100755" if entry.mode & 0o100 else b"100644"


def blob_head(mark: int, size: int) -> bytes:
    """Goes before the bytes of a content; a line end goes behind."""
    return b"blob\nmark :%d\ndata %d\n" % (mark, size)


def commit_head(signed: SignedGeneration, *, continues: bool) -> bytes:
    """The begin of a commit. ``continues`` an earlier run: the commit names the branch as its parent."""
    body = signed.body()
    writer = signed.signature.signer
    name = " ".join(re.sub(r"[<>\x00-\x1f\x7f]", " ", body.author).split()) or "unknown"
    user = re.sub(r"[^A-Za-z0-9._-]+.*", "", name, flags=re.DOTALL) or "unknown"
    who = f"{name} <{user}@{writer}> {body.time_ms // 1000} +0000"
    message = body.message.replace("\0", " ").strip() or f"generation {body.number}"
    text = (
        f"{message}\n\nInstep-Id: {signed.id.hex()}\n"
        f"Instep-Generation: {body.epoch}.{body.number}\nInstep-Root: {body.root.hex()}\n"
    ).encode()
    begin = f"commit {BRANCH}\nauthor {who}\ncommitter {who}\ndata {len(text)}\n".encode() + text
    return begin + (f"from {BRANCH}^0\n".encode() if continues else b"")


def file_line(entry: Entry, mark: int) -> bytes:
    return b"M %s :%d %s\n" % (_mode(entry), mark, _quoted(entry.path))


def removal_line(path: bytes) -> bytes:
    return b"D %s\n" % _quoted(path)


ALL_REMOVED = b"deleteall\n"


def _quoted(path: bytes) -> bytes:
    escaped = path.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + escaped + b'"'
