"""Filesets in ``instep.toml``: the keys that travel with one, the keys that stay on this node, and the conflicts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from instep.errors import InstepError, RefusedError
from instep.model.definition import Definition, FilesetClass, Mode, Preserve
from instep.model.external import External
from instep.model.ids import FilesetName, LineId, NodeName, fileset_name
from instep.model.replication.copies import CopiesRule
from instep.model.rollout import RolloutPolicy, Strategy
from instep.model.share import Share, share_of
from instep.node.config import values
from instep.node.config.copies import CopiesSettings, read_copies
from instep.node.config.definitions import TravellingKeys, read_rollout
from instep.node.config.external import ExternalSettings, read_external
from instep.node.config.facts import ServiceSettings, service_kind
from instep.node.config.golden import GoldenSettings, read_golden
from instep.node.config.hooks import ON_COLLISION, HooksSettings, check_heard, read_hooks
from instep.node.config.keys import NO_DEFAULT, Key, Section, inline, key, keys_of, section, sections_of
from instep.node.config.kinds import BadValue, as_set, boolean, choice, kind, off_or, some_of, string, strings
from instep.node.config.partners import PartnerSettings
from instep.node.config.table_reader import Table
from instep.node.config.values import (
    MaxDeletions,
    absolute_path,
    count,
    duration_ms,
    node_name,
    node_names,
    percent,
    relative_path,
    relative_paths,
)
from instep.tree.objects.owners import OwnerRules
from instep.tree.root.resolving import resolved


@kind(is_list=True)
def _owners(raw: object) -> tuple[str, ...]:
    words = strings([raw] if isinstance(raw, str) else raw)
    try:
        OwnerRules.of(words)
    except ValueError as error:
        raise BadValue(
            f"holds {str(error)!r}; right is by_name, pairs such as tomcat=tomcat9 and :staff=:users, or one USER:GROUP"
        ) from None
    return words


_FOLLOWED = "is for filesets that are followed here; this one is written here"
_KEPT = ("keep", "offer")
_KEEP_AND_EXCHANGE = (
    "does not go with switch = exchange, which archives local changes that come shortly before it"
)
_WITHOUT = (*(item.value for item in Preserve), "setuid", "security", "mode", "times", "symlinks")


@dataclass(frozen=True, slots=True)
class ExpectedMount:
    """What ``expect_mount`` says: a kind, a mount point and a directory of a file server, each where not None."""

    kind: str | None
    at: str | None = None
    share: Share | None = None

    def __str__(self) -> str:
        at = f" on {self.at}" if self.at is not None else ""
        return (self.kind or "any") + at + (f" from {self.share}" if self.share is not None else "")


def _expected(raw: object) -> ExpectedMount:
    before, named, of_server = string(raw).partition(" from ")
    of_kind, on, at = before.partition(" on ")
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", of_kind):
        raise BadValue('is not a kind of file system such as "nfs4", or "nfs4 on /mnt/maps"')
    share = share_of(of_server) if named else None
    if named and share is None:
        raise BadValue(
            'names no directory of a file server after "from", such as files:/srv/maps or //files/maps'
        )
    return ExpectedMount(None if of_kind == "any" else of_kind, str(absolute_path(at)) if on else None, share)


def _root(raw: object) -> Path:
    if isinstance(raw, str) and share_of(raw) is not None:
        raise BadValue("is a directory of a file server: mount it, and name the place where it is mounted")
    return absolute_path(raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivePolicy:
    """The least that the archive keeps. A batch that one of the first two keys keeps, stays, except where
    the archive is thinned above ``max_share``."""

    keep_last: int = key(10, count)
    """Generations whose replaced files stay at least."""
    keep_within_ms: int = key("30d", duration_ms)
    """Age up to which replaced files stay at least."""
    max_share_percent: float = key("20%", percent)
    """Share of the file system above which older versions are thinned, and status warns of the rest."""
    keep_hourly: int = key(24, count)
    """Hours of which one version of each file stays when the archive is thinned. All of the last hour stay."""
    keep_daily: int = key(7, count)
    """Days of which one version of each file stays when the archive is thinned; then one a week stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesetSettings:
    """One fileset on this node."""

    name: FilesetName
    path: Path = key(NO_DEFAULT, _root)
    """The root directory on this node."""
    writer: NodeName = key(NO_DEFAULT, node_name)
    """This node's name: written here. Another name: followed here."""
    origin: NodeName | None = key(None, node_name)
    """The node that began the line, where the writer was changed since; else the writer."""
    definition: Definition | None = inline(TravellingKeys)
    """The rules that travel, where it is written; None where it is followed."""
    has_preserve: bool = False
    """Whether the file has the key ``preserve``, so that an operator chose what travels."""
    publish: str = key("auto", choice("auto", "manual"))
    """`auto`: changes are published by themselves; `manual`: on `instep publish`."""
    settle_ms: int = key("200ms", duration_ms)
    """Quiet time before an automatic publish."""
    settle_max_ms: int = key("10s", duration_ms)
    """Latest automatic publish while changes go on."""
    fixity_ms: int | None = key("off", off_or(duration_ms))
    """How often every byte of the tree is read and compared with its digest, such as `7d`, or `off`. A file that the
    disk changed is fetched anew where it is followed, and named where it is written. Meanwhile nothing is published or
    applied."""
    trigger: bytes | None = key(None, relative_path)
    """A file whose change publishes at once after settle."""
    trigger_max_ms: int = key("5s", duration_ms)
    """Latest publish of changes to other files, with a trigger."""
    max_deletions: MaxDeletions = key("50%", values.max_deletions)
    """More deletions than this (a share, at least 20; or a number; or `off`) need --accept-deletions."""
    hold_while: tuple[bytes, ...] = key([], relative_paths)
    """Publishing by itself waits while one of these paths exists, at most 10 minutes; a star stands for a part of one
    name. Such as `.git/index.lock`."""
    strict: bool = key(False, boolean)
    """All or nothing: a path that cannot be carried refuses the publish instead of keeping its last entry."""
    history: str = key("auto", choice("auto", "on", "off"))
    """Whether the writer keeps contents of past generations; `auto`: metadata, and files up to 4 MiB."""
    to: tuple[NodeName, ...] | None = key(None, node_names)
    """Partners that may have it; every partner that the flags allow when not given."""
    switch: str = key("inplace", choice("inplace", "exchange"))
    """How a generation goes live where it is followed: `inplace`, path by path; `exchange`, the whole root at once."""
    carry: tuple[bytes, ...] = key([], relative_paths)
    """With `exchange`: ignored paths that move to the new tree."""
    linger_ms: int = key("1m", duration_ms)
    """With `exchange`: how long the old tree stays for open readers."""
    offers_from: tuple[NodeName, ...] = key([], node_names)
    """Partners that may lock paths and whose changes are taken, where it is written; a hub that follows it passes
    theirs on to the writer as its own. None when not given."""
    drift: str = key("revert", choice("revert", "keep", "offer"))
    """`revert`: archive a local change and restore; `keep`: only report it; `offer`: submit it to the writer, whose
    `offers_from` must name this node, and archive what loses."""
    stage: Path | None = key("auto", off_or(absolute_path, "auto"))
    """Folder for staging, journal and archive; `auto`: beside the root where possible."""
    without: frozenset[str] = key([], as_set(some_of(*_WITHOUT)))
    """Metadata that this node's file system cannot keep and is given up here."""
    owners: tuple[str, ...] = key([], _owners)
    """To whom files belong where it is followed: `[]`, the daemon's user; `by_name`, the writer's owners that are known
    here, and never root; `tomcat=tomcat9` and `:staff=:users`, the same under other names; `tomcat` or `tomcat:tomcat`,
    one user and group for all."""
    observe: bool = key(False, boolean)
    """Compare and report, never write."""
    shared: bool = key(False, boolean)
    """Whether the root lies on storage that other nodes of the cluster use for this fileset too: one of them at a time
    lays generations there, and each reloads once it sees the files. Made by `instep fileset accept --shared`."""
    service: ServiceSettings | None = key(None, service_kind)
    """The program that uses the tree, for the facts `service` and `access`: `{ unit = "tomcat10.service" }`, `{
    pid_file = "/run/nginx.pid" }` or `{ user = "tomcat" }`."""
    expect_mount: ExpectedMount | None = key(None, _expected)
    """The kind of file system that must hold the root, such as `nfs4` or `nfs4 on /mnt/maps` (`any on /mnt/maps`)."""
    archive: ArchivePolicy = section(ArchivePolicy, ArchivePolicy, is_whole=True)
    hooks: HooksSettings = section(HooksSettings, HooksSettings)
    golden: GoldenSettings = section(GoldenSettings, GoldenSettings)
    external: tuple[External, ...] = section(ExternalSettings, (), is_listed=True)
    """Parts of the application that are not carried."""
    copies: tuple[CopiesRule, ...] = section(CopiesSettings, (), is_listed=True)
    """Copies wanted of its documents at other nodes, where it is written."""

    @property
    def line(self) -> LineId:
        """The line that is written or followed here; it stays the same when another node becomes its writer."""
        return LineId(self.name, self.origin or self.writer)

    @property
    def is_written_here(self) -> bool:
        return self.definition is not None

    @property
    def is_of_many_homes(self) -> bool:
        """Whether other nodes write lines of their own in the same tree."""
        return self.definition is not None and self.definition.mode is Mode.REPLICATE

    def changes_from(self, partners: Iterable[NodeName]) -> tuple[NodeName, ...]:
        """The nodes whose changes are taken: those of ``offers_from``. A fileset of many homes takes changes of all
        ``partners``, unless it names some."""
        return tuple(partners) if self.is_of_many_homes and not self.offers_from else self.offers_from

    def require_one_home(self) -> None:
        """``RefusedError`` for many homes: such a fileset is no side of a sync profile."""
        if self.is_of_many_homes:
            raise RefusedError(
                f"{self.name} has many homes, and a sync profile is between two filesets of one home each",
                hint=f"instep status {self.name}",
                code="not_in_replicate",
            )

    def offers_to(self, partner: NodeName) -> bool:
        """Whether ``to`` names the partner; its link has a say as well."""
        return self.to is None or partner in self.to


def read_filesets(
    top: Table, own_name: str | None, partners: Mapping[NodeName, PartnerSettings]
) -> dict[FilesetName, FilesetSettings]:
    found: dict[FilesetName, FilesetSettings] = {}
    filesets = top.below("filesets")
    for name in filesets.raw:
        try:
            fileset = fileset_name(name)
        except InstepError as error:
            filesets.wrong(name, f"is not a fileset name; {error.hint}", name)
            continue
        table = filesets.below(name)
        settings = _fileset(table, fileset, own_name)
        if settings is not None:
            _check_nodes(table, settings, own_name, partners)
            found[fileset] = settings
    _check_roots(filesets, found)
    return found


def _fileset(table: Table, name: FilesetName, own_name: str | None) -> FilesetSettings | None:
    row = table.read(FilesetSettings)
    root, writer = row["path"], row["writer"]
    if row["switch"] == "exchange" and row["drift"] in _KEPT:
        table.wrong("drift", _KEEP_AND_EXCHANGE, row["drift"])
    if row["shared"]:
        _check_shared(table, row, is_written=row["writer"] is not None and row["writer"] == own_name)
    archive = ArchivePolicy(**table.below("archive").read(ArchivePolicy))
    hooks = read_hooks(table.below("hooks"), root)
    policy = read_rollout(table.below("rollout"))
    if row["settle_max_ms"] < row["settle_ms"]:
        table.wrong("settle_max", "is shorter than settle")
    is_here = writer is not None and writer == own_name
    if is_here:
        _check_written(table, hooks, is_observing=row["observe"])
    elif writer is not None and own_name is not None:
        _check_followed(table, writer)
    golden = read_golden(table.below("golden"), root)
    external, copies = read_external(table), read_copies(table, own_name)
    rules = {one.field: row.pop(one.field) for one in keys_of(TravellingKeys)}
    if root is None or writer is None:
        return None
    check_heard(table.below("hooks"), ON_COLLISION, hooks.on_collision, "fileset")
    if rules["mode"] is Mode.REPLICATE and is_here:
        _check_many_homes(table, row, rules, policy)
    elif hooks.on_collision:
        table.below("hooks").wrong(ON_COLLISION, _OF_MANY)
    if rules["fileset_class"] is FilesetClass.SECRET and is_here:
        _check_secret(table, row, rules)
    definition = Definition(**rules, rollout=policy.encoded()) if is_here else None
    return FilesetSettings(
        name=name,
        **row,
        definition=definition,
        has_preserve="preserve" in table.raw,
        archive=archive,
        hooks=hooks,
        golden=golden,
        external=external,
        copies=copies,
    )


def _check_followed(table: Table, writer: NodeName) -> None:
    declared: list[Key | Section] = [*keys_of(FilesetSettings), *sections_of(FilesetSettings)]
    for one in declared:
        if one.travels and one.name in table.raw:
            why = f"travels with the fileset and is set at its writer {writer}; remove it here"
            table.wrong(one.name, why)


def _check_written(table: Table, hooks: HooksSettings, *, is_observing: bool) -> None:
    if is_observing:
        table.wrong("observe", _FOLLOWED, True)
    for slot in ("freeze", "thaw", "repair"):
        if getattr(hooks, slot):
            table.below("hooks").wrong(slot, _FOLLOWED)


_NOT_SHARED = "does not go with shared = true"


def _check_shared(table: Table, row: Mapping[str, object], *, is_written: bool) -> None:
    if is_written:
        table.wrong("shared", _FOLLOWED, True)
    for name, usual in (("switch", "inplace"), ("observe", False)):
        if row[name] != usual:
            table.wrong(name, _NOT_SHARED, row[name])
    if row["drift"] != "revert":
        table.wrong(
            "drift",
            f"{_NOT_SHARED}: the node that lays generations restores local changes of all",
            row["drift"],
        )


_OF_MANY = "goes with mode = replicate: one home alone has no collisions"
_NOT_WITH_MANY = "does not go with mode = replicate, in which several nodes write one tree"


def _check_many_homes(
    table: Table, row: Mapping[str, object], rules: Mapping[str, object], policy: RolloutPolicy
) -> None:
    for name in ("preserve", "gates"):
        if rules[name]:
            table.wrong(name, _NOT_WITH_MANY, table.raw.get(name))
    if row["switch"] == "exchange":
        table.wrong("switch", _NOT_WITH_MANY, "exchange")
    if policy.strategy not in (Strategy.AUTO, Strategy.TOGETHER):
        table.below("rollout").wrong("strategy", _NOT_WITH_MANY, policy.strategy.value)


def _check_secret(table: Table, row: Mapping[str, object], rules: Mapping[str, object]) -> None:
    if row["to"] is None:
        table.wrong(
            "to", "is missing: class = secret goes to the partners that it names, and to no other", None
        )
    if rules["mode"] is not Mode.MIRROR:
        table.wrong("mode", _NOT_WITH_SECRET, table.raw.get("mode"))
    if row["history"] == "on":
        table.wrong("history", _NOT_WITH_SECRET, "on")


_NOT_WITH_SECRET = "does not go with class = secret, of which one old version is kept at most"


def _check_nodes(
    table: Table,
    fileset: FilesetSettings,
    own_name: str | None,
    partners: Mapping[NodeName, PartnerSettings],
) -> None:
    """Which node writes it and which get it, against the list of partners."""
    writer = fileset.writer
    if writer != own_name and writer not in partners:
        what = f"writer {writer} is not a partner: {fileset.name} can only come through a hub"
        table.warn("writer", what)
    for name in fileset.to or ():
        if name == own_name:
            table.wrong("to", "names this node itself", name)
        elif name not in partners:
            table.warn("to", f"{name} in to is not a partner yet: instep invite {name}")
    for name in fileset.offers_from:
        if name == own_name:
            table.wrong("offers_from", "names this node itself", name)
        elif name not in partners:
            table.warn("offers_from", f"{name} in offers_from is not a partner yet: instep invite {name}")


def _check_roots(filesets: Table, found: Mapping[FilesetName, FilesetSettings]) -> None:
    """No two roots may overlap, and none may hold the node directory with its keys."""
    placed: list[tuple[FilesetSettings, Path]] = []
    directory = filesets.reading.directory
    keys = resolved(directory) if directory is not None else None
    for fileset in found.values():
        table, root, real = filesets.below(fileset.name), str(fileset.path), resolved(fileset.path)
        for other, taken in placed:
            if _overlap(real, taken):
                shared = "is also" if fileset.path == other.path else "overlaps"
                table.wrong("path", f"{shared} the path of fileset {other.name} ({other.path})", root)
        placed.append((fileset, real))
        if keys is not None and _overlap(real, keys):
            table.wrong("path", f"overlaps the node directory {directory} with its keys", root)


def _overlap(one: Path, other: Path) -> bool:
    """Whether one is the other or lies in it."""
    return one.is_relative_to(other) or other.is_relative_to(one)
