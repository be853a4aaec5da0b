"""Whether a fileset may be followed in a directory: by the files there, and by the filesets that use it already."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from msgspec.structs import replace

from instep.api import filesets as api
from instep.api.verifying import DifferenceDocument
from instep.errors import RefusedError, UsageError
from instep.model.ids import FilesetName, HeadRef, NodeName
from instep.model.paths import path_fields
from instep.net.messages import messages as m
from instep.node.cluster.service import ClusterService
from instep.node.config.filesets import FilesetSettings
from instep.node.config.settings import Settings
from instep.node.lines.line_service import LineService
from instep.node.trees.tree_comparison import Numbers
from instep.tree.root.beneath import Root
from instep.tree.root.marker import read_marker
from instep.tree.scan.rules import is_lost_and_found
from instep.tree.scan.touched import is_reserved

SAMPLE_MAX = 100


async def shared_by(cluster: ClusterService, settings: Settings, asked: api.Comparing) -> str:
    """The cluster, by the id of its database, whose nodes share the root; empty for a root of this node's own."""
    if not asked.shared:
        return ""
    not_shared = {
        "--observe": asked.mode == "observe" or asked.observe,
        "--switch exchange": asked.switch == "exchange",
        "--drift": asked.drift not in (None, "revert"),
    }
    for other in (flag for flag, is_given in not_shared.items() if is_given):
        raise UsageError(f"--shared and {other} exclude each other", code="bad_flags")
    if settings.cluster_file is None:
        raise RefusedError(
            f"nodes that share the root of {asked.name} agree in the cluster's database, and this node has none",
            hint="name it in instep.toml as cluster_file = FILE, on each node; then: instep config reload",
            code="shared_needs_database",
        )
    async with cluster.transaction() as (_, era):
        return era.cluster


def with_numbers(
    document: api.AcceptedDocument, numbers: Numbers, head: HeadRef | None
) -> api.AcceptedDocument:
    """The document with how the directory differs from the generation."""
    sample = (DifferenceDocument(why=why, **path_fields(path)) for path, why in numbers.sample[:SAMPLE_MAX])
    return replace(
        document,
        only_here=numbers.extra,
        only_there=numbers.missing,
        differing=numbers.changed,
        sample=tuple(sample),
        generation=head.number if head is not None else None,
    )


def refusal_of(
    node: NodeName,
    name: FilesetName,
    path: Path,
    offer: m.Offer,
    head: HeadRef | None,
    numbers: Numbers,
    is_empty: bool,
) -> RefusedError | None:
    """Why a directory is followed only where the operator says what becomes of its files."""
    if is_empty or is_marked_for(path, name, node):
        return None
    at = quote(str(path))
    if head is None:
        return RefusedError(
            f"{path} is not empty, and {offer.writer} has published nothing of {name} yet to compare it with",
            hint=f"publish on {offer.writer} first; or: instep fileset accept {name} {at} --replace",
            code="not_empty",
            path=str(path),
        )
    if not numbers.total:
        return None
    return RefusedError(
        f"{path} is not empty and differs from {name} generation {head.number}: "
        f"{numbers.extra} only here, {numbers.missing} only there, {numbers.changed} different",
        hint=f"--seed uses equal files and archives the rest, --replace archives what is there, --observe "
        f"only compares: instep fileset accept {name} {at} --seed",
        code="not_empty",
        only_here=numbers.extra,
        only_there=numbers.missing,
        differing=numbers.changed,
        generation=head.number,
        path=str(path),
        sample=[path_fields(p)["path"] for p, _ in numbers.sample[:20]],
    )


def stands(service: LineService) -> tuple[str, tuple[str, ...]]:
    """How a fileset stands that is followed already, for an operator who accepts it again; and the next steps."""
    now = service.standing
    return f"it is {now.standing.value.replace('_', ' ')}" + (
        f": {now.reason}" if now.reason else ""
    ), now.next_steps


def require_same(running: FilesetSettings, asked: api.Comparing) -> None:
    name, path, writer = running.name, running.path, running.writer
    if str(path) != asked.path or asked.home not in (None, writer):
        raise RefusedError(
            f"{name} of {writer} is in {path} already, not in {asked.path}",
            hint=f"instep fileset remove {name}, then accept it anew",
            code="accepted_elsewhere",
            ours=str(path),
            asked=asked.path,
        )
    if asked.shared and not running.shared:
        raise RefusedError(
            f"{name} is followed in {path} already, which is this node's own root",
            hint=f"instep fileset remove {name}, then accept it anew with --shared",
            code="accepted_elsewhere",
            ours=str(path),
            asked=asked.path,
        )
    if running.is_written_here:
        raise RefusedError(f"{name} is written on this node", code="written_here", fileset=name)


def is_empty_root(path: Path) -> bool:
    """Whether there is nothing that a generation could replace: our own control folder and mkfs's do not count."""
    with Root(path) as root:
        return all(is_reserved(name) or is_lost_and_found(name, found) for name, found in root.stats(b""))


def is_marked_for(path: Path, name: FilesetName, node: NodeName) -> bool:
    """Whether the directory carries this node's own marker of this fileset: it was accepted before."""
    marker = read_marker(path)
    return marker is not None and (marker.fileset, marker.node) == (name, node)
