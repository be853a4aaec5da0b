"""Each tree against its manifest, the answers of the applications, and the preflight."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from instep.api.command import Command, Document, FilesetCommand, Role, command
from instep.api.parts import GenerationDocument
from instep.errors import DamagedError, RefusedError, ResourceError, UnavailableError
from instep.model.ids import Count


class DifferenceDocument(Document, frozen=True, kw_only=True):
    """A path that differs from the manifest."""

    path: str
    path_b64: str | UnsetType = UNSET
    why: str


class VerifiedNodeDocument(Document, frozen=True):
    """The root that a node attests and where its tree differs; ``reason`` where it attests none. ``origin`` names the
    line, in a fileset of many homes."""

    name: str
    root: str | None
    generation: int | UnsetType = UNSET
    differing: int | UnsetType = UNSET
    differs: tuple[DifferenceDocument, ...] = ()
    reason: str | UnsetType = UNSET
    code: str | UnsetType = UNSET
    origin: str | UnsetType = UNSET


class VerifyDocument(Document, frozen=True):
    """Whether all roots of each line are the same and no tree differs from its own. In a fileset of many homes a node
    is listed once for each line."""

    fileset: str
    deep: bool
    identical: bool
    nodes: tuple[VerifiedNodeDocument, ...]


@command(
    "verify", Role.OPERATOR, UnavailableError, DamagedError, ResourceError, is_audited=False, needs_tree=True
)
class VerifyCommand(FilesetCommand[VerifyDocument], frozen=True):
    """Compare the roots of the fleet, and each tree's stat with its manifest; ``deep`` reads every byte. In a fileset
    of many homes, of every line on every node."""

    deep: bool = False
    fleet: bool = False


class AnswerDocument(Document, frozen=True):
    """An application's answer."""

    status: int | None
    sha256: str | None
    bytes: int
    problem: str | None


class TestDocument(Document, frozen=True):
    """One probe or golden request on one node."""

    name: str
    kind: str
    node: str
    ok: bool
    reason: str | None
    compared: bool
    before: AnswerDocument | None
    now: AnswerDocument | None
    largest_difference: int | None
    share_percent: float | None


class TestsDocument(Document, frozen=True):
    """All tests, and whether all of them are right."""

    fileset: str
    ok: bool
    generation: GenerationDocument | None
    nodes: tuple[str, ...]
    tests: tuple[TestDocument, ...]


@command(
    "test", Role.OPERATOR, RefusedError, UnavailableError, ResourceError, is_audited=False, needs_tree=True
)
class TestCommand(FilesetCommand[TestsDocument], frozen=True):
    """Run the probe hooks and golden requests of a fileset now; nothing is changed."""

    through_balancer: bool = False
    nodes: tuple[str, ...] = ()
    fleet: bool = False


class CheckRowDocument(Document, frozen=True):
    """One condition of work, with the values of both sides and the next step."""

    name: str
    ok: bool
    node: str
    ours: Any
    theirs: Any
    hint: str | None
    note: str | UnsetType = UNSET


class CheckDocument(Document, frozen=True):
    """All that must hold before work, and how long looking took."""

    ok: bool
    checks: tuple[CheckRowDocument, ...]
    took_ms: int


@command("check", Role.VIEWER)
class CheckCommand(Command[CheckDocument], frozen=True):
    """Look at everything that must hold before work. ``max_behind_ms``: also that the writer of each line that is
    followed here was heard of within that time."""

    max_behind_ms: Count | None = None
