"""The tables of ``instep.toml``, key by key and then against each other; problems are collected, not raised."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from instep.core.gates import BUILT_IN
from instep.errors import InstepError
from instep.model.ids import FilesetName, NodeName, fileset_name, node_name
from instep.model.link import Link
from instep.model.rollout import RolloutPolicy
from instep.node import config_keys as keys
from instep.node.balancer_reader import read_balancers
from instep.node.definition_fields import definition_of, policy_of
from instep.node.golden_reader import read_golden
from instep.node.hook_fields import read_hooks
from instep.node.settings import (
    ArchivePolicy,
    FactSettings,
    FilesetSettings,
    PartnerSettings,
    Settings,
)
from instep.node.toml_lines import KeyPath, path_text
from instep.node.values import BadValue

__all__ = ["Reader", "problem"]

_FOLLOWED = "is for filesets that are followed here; this one is written here"


def problem(line: int | None, key: str, value: object, why: str) -> dict[str, Any]:
    return {"line": line, "key": key, "value": _plain(value), "why": why}


def _plain(value: object) -> object:
    """The value as JSON can carry it (TOML has dates)."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return str(value)


class Reader:
    """Collects problems while it reads; a value that cannot be used is replaced by its default to go on."""

    def __init__(
        self, document: dict[str, Any], lines: Mapping[KeyPath, int], directory: Path | None
    ) -> None:
        self.document = document
        self.lines = lines
        self.directory = directory
        self.problems: list[dict[str, Any]] = []
        self.warnings: list[str] = []

    def line(self, path: KeyPath) -> int | None:
        """The line of the key, or of the nearest table that holds it."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return None

    def wrong(self, path: KeyPath, value: object, why: str) -> None:
        self.problems.append(problem(self.line(path), path_text(path), value, why))

    def warn(self, path: KeyPath, what: str) -> None:
        line = self.line(path)
        self.warnings.append(f"line {line}: {what}" if line else what)

    def table(self, path: KeyPath, raw: object) -> dict[str, Any]:
        if isinstance(raw, dict):
            return raw
        self.wrong(path, raw, f"is not a table such as [{'.'.join(path)}]")
        return {}

    def read(
        self, path: KeyPath, raw: Mapping[str, Any], known: Iterable[keys.Key], more: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Values of one table by key name; unknown keys and bad values become problems."""
        found: dict[str, Any] = {}
        names = [*more]
        for key in known:
            names.append(key.name)
            if key.name not in raw:
                if key.is_required:
                    self.wrong((*path, key.name), None, "is missing")
                    found[key.name] = None
                else:
                    found[key.name] = None if key.default is None else key.read(key.default)
                continue
            try:
                found[key.name] = key.read(raw[key.name])
            except BadValue as error:
                self.wrong((*path, key.name), raw[key.name], str(error))
                found[key.name] = None if key.default in (None, keys.NO_DEFAULT) else key.read(key.default)
        for name in raw:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
                self.wrong(
                    (*path, name),
                    raw[name],
                    "is not a known key" + (f"; did you mean {near[0]}?" if near else ""),
                )
        return found

    def settings(self, fingerprint: str) -> Settings | None:
        raw = self.document
        top = self.read((), raw, keys.NODE, ("partners", "filesets", "facts", "balancers"))
        name = top["name"]
        listen = top["listen"]
        if top["poll"] < 100:
            self.wrong(("poll",), raw.get("poll"), "is shorter than 100ms")
        advertise = top["advertise"] or listen
        if advertise.is_wildcard:
            self.warn(
                ("advertise",), f"{advertise} cannot be dialled; set advertise to an address of this machine"
            )
        if not listen.is_loopback and not top["allow"]:
            self.warn(
                ("listen",), "allow is empty, so only loopback peers may connect; add a network to allow"
            )
        taken = {key: top[key] for key in ("listen", "health", "agent") if top[key] is not None}
        for key in ("health", "agent"):
            twin = [other for other in taken if other != key and taken[other] == taken.get(key)]
            if twin:
                self.wrong((key,), str(taken[key]), f"is the address of {twin[0]} as well")
        partners = self.partners(name)
        filesets = self.filesets(name, partners)
        facts = self.facts()
        balancers = read_balancers(self, filesets)
        if self.problems:
            return None
        return Settings(
            name=name,
            listen=listen,
            advertise=advertise,
            is_advertise_written="advertise" in raw,
            health=top["health"],
            agent=top["agent"],
            allow=top["allow"],
            poll_ms=top["poll"],
            drain_linger_ms=top["drain_linger"],
            rate_limit=top["rate_limit"],
            allow_preserve=frozenset(top["allow_preserve"]),
            partners=MappingProxyType(partners),
            filesets=MappingProxyType(filesets),
            facts=MappingProxyType(facts),
            balancers=MappingProxyType(balancers),
            probers=top["probers"],
            allow_drain=frozenset(NodeName(name) for name in top["allow_drain"]),
            warnings=tuple(self.warnings),
            fingerprint=fingerprint,
        )

    def partners(self, self_name: str | None) -> dict[NodeName, PartnerSettings]:
        found: dict[NodeName, PartnerSettings] = {}
        for name, raw in self.table(("partners",), self.document.get("partners", {})).items():
            path = ("partners", name)
            try:
                partner = node_name(name)
            except InstepError as error:
                self.wrong(path, name, f"is not a node name; {error.hint}")
                continue
            if name == self_name:
                self.wrong(path, name, "is this node itself; a partner has another name")
            table = self.table(path, raw)
            row = self.read(path, table, keys.PARTNER)
            if not row["replicate"] and (table.get("data") is True or row["hub"]):
                self.warn(path, f"partner {name}: replicate = false voids data and hub")
            data = bool(row["data"] and row["replicate"])
            link = Link(replicate=row["replicate"], data=data, hub=bool(row["hub"] and row["replicate"]))
            found[partner] = PartnerSettings(link=link, address=row["address"], pin=row["pin"])
        return found

    def filesets(
        self, self_name: str | None, partners: Mapping[NodeName, PartnerSettings]
    ) -> dict[FilesetName, FilesetSettings]:
        found: dict[FilesetName, FilesetSettings] = {}
        for name, raw in self.table(("filesets",), self.document.get("filesets", {})).items():
            path = ("filesets", name)
            try:
                fileset = fileset_name(name)
            except InstepError as error:
                self.wrong(path, name, f"is not a fileset name; {error.hint}")
                continue
            settings = self.fileset(fileset, self.table(path, raw), self_name)
            if settings is not None:
                self.check_people(settings, self_name, partners)
                found[fileset] = settings
        self.check_roots(found)
        return found

    def fileset(
        self, name: FilesetName, raw: dict[str, Any], self_name: str | None
    ) -> FilesetSettings | None:
        path = ("filesets", name)
        row = self.read(path, raw, keys.FILESET, ("archive", "hooks", "rollout", "golden"))
        if row["switch"] == "exchange" and row["drift"] == "keep":
            self.wrong((*path, "drift"), "keep", keys.KEEP_AND_EXCHANGE)
        archive = self.read(
            (*path, "archive"), self.table((*path, "archive"), raw.get("archive", {})), keys.ARCHIVE
        )
        hooks = read_hooks(
            self, (*path, "hooks"), self.table((*path, "hooks"), raw.get("hooks", {})), row["path"]
        )
        policy = self.rollout((*path, "rollout"), self.table((*path, "rollout"), raw.get("rollout", {})))
        if row["settle_max"] < row["settle"]:
            self.wrong((*path, "settle_max"), raw.get("settle_max"), "is shorter than settle")
        is_here = row["writer"] is not None and row["writer"] == self_name
        if row["writer"] is not None and self_name is not None and not is_here:
            for travelling in [*(k.name for k in keys.FILESET if k.travels), "rollout"]:
                if travelling in raw:
                    why = f"travels with the fileset and is set at its writer {row['writer']}; remove it here"
                    self.wrong((*path, travelling), raw[travelling], why)
        if is_here and row["observe"]:
            self.wrong((*path, "observe"), True, _FOLLOWED)
        if is_here:
            for slot in ("freeze", "thaw", "repair"):
                if getattr(hooks, slot):
                    self.wrong((*path, "hooks", slot), raw["hooks"][slot], _FOLLOWED)
        if row["path"] is None or row["writer"] is None:
            return None
        return FilesetSettings(
            name=name,
            path=row["path"],
            writer=NodeName(row["writer"]),
            definition=definition_of(row, policy) if is_here else None,
            publish=row["publish"],
            settle_ms=row["settle"],
            settle_max_ms=row["settle_max"],
            trigger=None if row["trigger"] is None else os.fsencode(row["trigger"]),
            trigger_max_ms=row["trigger_max"],
            max_deletions=row["max_deletions"],
            strict=row["strict"],
            history=row["history"],
            to=None if row["to"] is None else tuple(NodeName(n) for n in row["to"]),
            switch=row["switch"],
            carry=tuple(map(os.fsencode, row["carry"])),
            linger_ms=row["linger"],
            drift=row["drift"],
            stage=row["stage"],
            archive=ArchivePolicy(
                keep_last=archive["keep_last"],
                keep_within_ms=archive["keep_within"],
                max_share_percent=archive["max_share"],
            ),
            without=frozenset(row["without"]),
            observe=row["observe"],
            hooks=hooks,
            service=row["service"],
            expect_mount=row["expect_mount"],
            golden=read_golden(self, (*path, "golden"), raw.get("golden", {}), row["path"]),
            origin=None if row["origin"] is None else NodeName(row["origin"]),
        )

    def rollout(self, path: KeyPath, raw: dict[str, Any]) -> RolloutPolicy:
        """How generations go through the partners; the defaults where a value cannot be used."""
        before = len(self.problems)
        row = self.read(path, raw, keys.ROLLOUT)
        if len(self.problems) > before:
            return RolloutPolicy()
        return policy_of(row, lambda key, why: self.wrong((*path, key), raw.get(key), why))

    def facts(self) -> dict[str, FactSettings]:
        found: dict[str, FactSettings] = {}
        for name, raw in self.table(("facts",), self.document.get("facts", {})).items():
            path = ("facts", name)
            before = len(self.problems)
            row = self.read(path, self.table(path, raw), keys.FACT)
            origins = ("file", "run", "list", "digest_of", "fingerprint_of", "value")
            sources = [key for key in origins if row[key] is not None]
            if name in BUILT_IN:
                self.wrong(path, raw, "is the name of a built-in fact; choose another")
            if len(self.problems) > before:
                continue
            if len(sources) != 1:
                self.wrong(
                    path, raw, "needs exactly one of file, run, list, digest_of, fingerprint_of and value"
                )
            elif row["match"] is not None and sources not in (["file"], ["run"]):
                self.wrong((*path, "match"), row["match"], "goes with file or run")
            found[name] = FactSettings(**row)
        return found

    def check_people(
        self, fileset: FilesetSettings, self_name: str | None, partners: Mapping[NodeName, PartnerSettings]
    ) -> None:
        """Who writes it and who gets it, against the list of partners."""
        path = ("filesets", fileset.name)
        if fileset.writer != self_name and fileset.writer not in partners:
            self.warn(
                (*path, "writer"),
                f"writer {fileset.writer} is not a partner: {fileset.name} can only come through a hub",
            )
        for name in fileset.to or ():
            if name == self_name:
                self.wrong((*path, "to"), name, "names this node itself")
            elif name not in partners:
                self.warn((*path, "to"), f"{name} in to is not a partner yet: instep invite {name}")

    def check_roots(self, filesets: Mapping[FilesetName, FilesetSettings]) -> None:
        """No two roots may overlap, and none may hold the node directory with its keys."""
        placed: list[FilesetSettings] = []
        for fileset in filesets.values():
            where: KeyPath = ("filesets", fileset.name, "path")
            for other in placed:
                if _overlap(fileset.path, other.path):
                    shared = "is also" if fileset.path == other.path else "overlaps"
                    self.wrong(
                        where, str(fileset.path), f"{shared} the path of fileset {other.name} ({other.path})"
                    )
            placed.append(fileset)
            if self.directory is not None and _overlap(fileset.path, Path(os.path.realpath(self.directory))):
                self.wrong(
                    where, str(fileset.path), f"overlaps the node directory {self.directory} with its keys"
                )


def _overlap(one: Path, other: Path) -> bool:
    """Whether one is the other or lies in it, symlinks on the way followed where they exist."""
    first, second = Path(os.path.realpath(one)), Path(os.path.realpath(other))
    return first.is_relative_to(second) or second.is_relative_to(first)
