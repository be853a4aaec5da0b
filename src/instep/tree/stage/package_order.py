"""The place of packages among the steps of a switch: behind the documents that they name, and away before those."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from instep.model.definition import Definition
from instep.model.manifest.entry import Entry, Kind
from instep.tree.journal.journal import Op, Step, decode_record
from instep.tree.scan.rules import Rules

_ADDED = (Op.NEW, Op.CHANGE, Op.META)


def packages_of(definition: Definition) -> Rules | None:
    """The patterns of packages, which match paths of a line; None where there are none."""
    return Rules(Definition(ignore=definition.packages)) if definition.packages else None


def in_package_order(read: Callable[[], Iterable[bytes]], definition: Definition) -> Iterator[Step]:
    """The steps of the records that ``read`` gives, which is called twice: packages last among what is new or changed
    and first among what is removed. Steps of directories, and of files in the place of directories, stay where they
    are."""
    packages = packages_of(definition)
    if packages is None:
        yield from _steps(read())
        return
    added: list[Step] = []
    removed: list[Step] = []
    for step in _steps(read()):
        if _is_of_package(step, packages):
            (added if step.op in _ADDED else removed).append(step)
    waiting, has_begun = [*added, *removed], False
    for step in _steps(read()):
        is_closing = step.op in (Op.REMOVE, Op.TIME) or (step.op is Op.MODE and has_begun)
        if is_closing:
            yield from waiting
            waiting = []
        has_begun = has_begun or step.op is not Op.MODE
        if not _is_of_package(step, packages):
            yield step
    yield from waiting


def _steps(records: Iterable[bytes]) -> Iterator[Step]:
    for record in records:
        step = decode_record(record)
        assert isinstance(step, Step)
        yield step


def _is_of_package(step: Step, packages: Rules) -> bool:
    if step.op not in (*_ADDED, Op.REMOVE):
        return False
    is_file = all(_is_file(entry) for entry in (step.new, step.old))
    return is_file and (step.new or step.old) is not None and packages.ignored(step.path, is_dir=False)


def _is_file(entry: Entry | None) -> bool:
    return entry is None or entry.kind is Kind.FILE
