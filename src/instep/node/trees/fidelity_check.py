"""Whether a file system keeps what a fileset preserves, before a directory there is taken as its root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from instep.errors import RefusedError, ResourceError, UsageError
from instep.model.definition import Definition, Preserve
from instep.model.ids import FilesetName
from instep.tree.objects.abilities import Ability, lacking, probe_filesystem


def read_without(asked: Sequence[str]) -> frozenset[Preserve]:
    known = {each.value: each for each in Preserve}
    wrong = [item for item in asked if item not in known]
    if wrong:
        raise UsageError(
            f"--without does not know {', '.join(wrong)}",
            hint=f"it knows {', '.join(known)}",
            code="bad_flags",
        )
    return frozenset(known[item] for item in asked)


_BASICS = (Ability.MODES, Ability.NS_TIMES, Ability.SYMLINKS)


def check_fidelity(
    name: FilesetName, path: Path, definition: Definition, without: frozenset[Preserve]
) -> None:
    """Refuse what the file system cannot keep, unless the operator gives it up by name. A directory that is
    still to be made is judged by its parent."""
    there = path if path.exists() else path.parent
    if not there.is_dir():
        return  # taking the root says what is missing
    try:
        abilities = probe_filesystem(there)
    except OSError as error:
        raise ResourceError(
            f"cannot try out which metadata the file system of {there} keeps: {error.strerror}",
            hint="make it writable for the daemon",
            code="root_unwritable",
            path=str(there),
        ) from error
    basics = [ability.value for ability in _BASICS if ability not in abilities]
    if basics:
        raise RefusedError(
            f"the file system of {there} cannot keep {', '.join(basics)}",
            hint="name a directory on another file system, such as ext4, xfs or btrfs",
            code="cannot_keep_basics",
            lost=basics,
            path=str(path),
        )
    lost = sorted(
        what.value for what in lacking((w for w in definition.preserve if w not in without), abilities)
    )
    if lost:
        raise RefusedError(
            f"the file system of {there} cannot keep {', '.join(lost)}, which {name} preserves",
            hint=f"instep fileset accept {name} {quote(str(path))} --without {','.join(lost)} (status repeats it)",
            code="cannot_keep",
            lost=lost,
            path=str(path),
        )
