"""Which paths a definition ignores: gitignore patterns in ``ignore``, taken back by patterns in ``include``.

The semantics are gitignore's, last match wins, with the include patterns after the ignore patterns. An
ignored directory is not entered. One kindness beyond gitignore: where an include pattern begins with a
literal directory (``cache/keep.txt``), that directory is entered even when it is ignored, and
only the paths that the include patterns name come out of it.

Also the one directory that is no content whatever a definition says: ``lost+found``.
"""

from __future__ import annotations

import functools
import os
import re
import stat

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from instep.errors import ConfigError
from instep.model.definition import Definition
from instep.tree.root.beneath import Root

_WILD = re.compile(r"[*?\[\\]")
_KNOWN_MAX = 4096
_DEEP = 100
_STAR = "[^/]*"
_ANYWHERE = "^(?:.+/)?"
_ANY_BELOW = "(?:/.+)?/"
_COMPONENTS = "(?:[^/]+/)*?"
_ESCAPED = re.compile(r"\\.", re.DOTALL)
_STRUCTURE = re.compile(r"[/()|]")


LOST_AND_FOUND = b"lost+found"


def is_lost_and_found(path: bytes, found: os.stat_result) -> bool:
    """Whether ``path`` of a root is the directory that mkfs makes at the top of a file system, as its owner and mode
    show. It belongs to fsck and to this disk: no node publishes, changes or counts it."""
    if path != LOST_AND_FOUND:
        return False
    return stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700 and found.st_uid == 0


def is_in_lost_and_found(root: Root, path: bytes) -> bool:
    """Whether ``path`` is that directory of the open ``root``, or lies in it."""
    if path.partition(b"/")[0] != LOST_AND_FOUND:
        return False
    found = root.stat_or_none(LOST_AND_FOUND)
    return found is not None and is_lost_and_found(LOST_AND_FOUND, found)


class Rules:
    """The patterns of one definition, compiled. Safe to share between threads."""

    def __init__(self, definition: Definition) -> None:
        self.has_patterns = bool(definition.ignore)
        if not self.has_patterns:
            return
        lines = [*definition.ignore, *(f"!{line}" for line in definition.include)]
        sources = [each for line in lines if (each := _closed(line)) is not None]
        self._patterns = [(re.compile(text, re.DOTALL), ignores) for text, ignores in reversed(sources)]
        self._quick = re.compile("|".join(f"(?:{text})" for text, _ in sources), re.DOTALL)
        self._is_simple = all(ignores for _, ignores in sources)
        self.has_patterns = bool(sources)
        self._opened = frozenset(_literal_ancestors(definition.include))
        self._is_directory_ignored = functools.lru_cache(_KNOWN_MAX)(self._directory_state)

    def ignored(self, path: bytes, is_dir: bool) -> bool:
        """Whether ``path`` is ignored, or lies in an ignored directory."""
        if not self.has_patterns:
            return False
        text = path.decode("utf-8", "surrogateescape")
        if is_dir:
            return self._is_directory_ignored(text) and text not in self._opened
        return self._state(text, text)

    def _directory_state(self, text: str) -> bool:
        return self._state(text, text + "/")

    def _state(self, text: str, subject: str) -> bool:
        own = self._match(subject)
        if own is not None:
            return own
        if text.count("/") > _DEEP:
            # From the top, so that each finds its parent known: a path may have 2,000 components.
            for at in [at for at, c in enumerate(text) if c == "/"][::_DEEP]:
                self._is_directory_ignored(text[:at])
        parent = text.rpartition("/")[0]
        return bool(parent) and self._is_directory_ignored(parent)

    def _match(self, subject: str) -> bool | None:
        """True ignored, False taken back, None when no pattern speaks."""
        if self._quick.fullmatch(subject) is None:
            return None
        if self._is_simple:
            return True
        for pattern, ignores in self._patterns:
            if pattern.fullmatch(subject):
                return ignores
        return None


def _closed(line: str) -> tuple[str, bool] | None:
    """Expression and whether it ignores; None for blank lines and comments."""
    try:
        pattern = GitIgnoreSpecPattern(line)
    except (ValueError, re.error) as error:
        raise ConfigError(
            f"the ignore pattern {line!r} is malformed: {error}", code="bad_pattern", pattern=line
        ) from error
    if pattern.regex is None or pattern.include is None:
        return None
    source = pattern.regex.pattern
    assert isinstance(source, str)
    return _without_wandering(_without_backtracking(_of_the_path_itself(source))), pattern.include


def _of_the_path_itself(source: str) -> str:
    """``pathspec`` matches a path or any path below it; here parents are asked for themselves, so the
    pattern is closed to match exactly one path (a directory has a trailing slash)."""
    for tail, closed in ((r"(?:(?P<ps_d>/)|$)", "/?"), (r"(?P<ps_d>/)", "/"), ("/", "/.+"), (".", ".+")):
        if source.endswith(tail):
            return source.removesuffix(tail) + closed
    return source + ".*"


def _without_backtracking(source: str) -> str:
    """The same expression where several stars of one component cannot try each other's places in turn: the
    text between two stars may as well be taken where it is found first. A pattern like ``*a*a*a*a*b``, which
    a peer's definition may bring, would otherwise stand still on a long name."""
    first, *rest = source.split(_STAR)
    if len(rest) < 2:
        return source
    parts = [first]
    for between in rest[:-1]:
        is_fixed = bool(between) and not _STRUCTURE.search(_ESCAPED.sub("", between.replace("[^/]", "")))
        parts.append(f"(?>[^/]*?{between})" if is_fixed else _STAR + between if between else "")
    return "".join(parts) + _STAR + rest[-1]


def _without_wandering(source: str) -> str:
    """The same for ``**``: the text between two of them covers a fixed number of components, so its first place
    is as good as any."""
    *fixed, last = source.split(_ANY_BELOW)
    is_floating = source.startswith(_ANYWHERE)
    if len(fixed) + is_floating < 2:
        return source
    first = fixed[0].removeprefix(_ANYWHERE)
    begin = f"^(?>{_COMPONENTS}{first}/)" if is_floating else f"{first}/"
    return begin + "".join(f"(?>{_COMPONENTS}{each}/)" for each in fixed[1:]) + f"(?:.+/)?{last}"


def _literal_ancestors(include: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    for line in include:
        parts = line.strip().lstrip("/").split("/")
        for count in range(1, len(parts)):
            if _WILD.search(parts[count - 1]) or not parts[count]:
                break
            found.add("/".join(parts[:count]))
    return found
