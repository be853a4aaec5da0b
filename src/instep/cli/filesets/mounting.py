"""``fileset mount-lines``: what a file server and the nodes have to say so that a root lies on it. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from shlex import quote
from typing import Any

import click

from instep.cli.output import printable
from instep.cli.session import Session, command
from instep.model.definition import Mode
from instep.model.share import NFS, SMB, Share
from instep.node.config.filesets import FilesetSettings
from instep.node.config.settings import Settings
from instep.node.facts.mount_lines import (
    MountLine,
    ServerExport,
    SharedRoot,
    expected_words,
    export_of,
    kind_of,
    mounts_of,
)
from instep.node.facts.mounts import mount_at
from instep.node.lines.snapshot import pick_fileset


@command("mount-lines", example="instep fileset mount-lines catalog --server files.example.org")
@click.argument("fileset")
@click.option("--server", required=True, metavar="HOST", help="The file server, as the nodes name it.")
@click.option("--form", "share_form", type=click.Choice([NFS, SMB]), default=NFS, show_default=True)
@click.option(
    "--export", "exported", metavar="PATH", help="The directory on the server. Default: as the root here."
)
@click.option("--writer", "writers", multiple=True, metavar="HOST|CIDR",
              help="A machine that writes it. Default: the nodes that write the fileset.")  # fmt: skip
@click.option("--reader", "readers", multiple=True, metavar="HOST|CIDR",
              help="A machine that only reads it. Default: the networks of `allow`.")  # fmt: skip
def mount_lines(
    session: Session,
    fileset: str,
    server: str,
    share_form: str,
    exported: str | None,
    writers: tuple[str, ...],
    readers: tuple[str, ...],
) -> None:
    """Print export, mount and fstab lines for a root that lies on a file server.

    Nodes that write the fileset mount it rw; all other machines ro. Nothing is mounted, and nothing is asked of the
    server.
    """
    settings = session.settings()
    chosen = pick_fileset(settings, fileset)
    wanted = _wanted(session, settings, chosen, server, share_form, exported, writers, readers)
    export, mounts = export_of(wanted), mounts_of(wanted)
    expected = expected_words(wanted.share, wanted.at)
    step = f"instep fileset set {chosen.name} {quote(f'expect_mount={expected}')}"
    document: dict[str, Any] = {
        "fileset": chosen.name, "server": server, "form": share_form, "source": str(wanted.share), "at": wanted.at,
        "type": kind_of(wanted.share), "here": "ro" if chosen.observe else "rw",
        "export": {"file": export.file, "lines": list(export.lines), "reload": export.reload},
        "mounts": [
            {"access": each.access, "hosts": list(each.hosts), "fstab": each.fstab, "mount": each.command}
            for each in mounts
        ],
        "expect_mount": expected, "next": [step, "instep check"],
    }  # fmt: skip
    if not session.gave_json(document):
        for line in _lines(server, wanted, export, mounts):
            print(printable(line))
        print(
            f"then on each node, so that a missing mount is no empty root:\n  {printable(step)}\n  instep check"
        )


def _wanted(
    session: Session,
    settings: Settings,
    fileset: FilesetSettings,
    server: str,
    share_form: str,
    exported: str | None,
    writers: tuple[str, ...],
    readers: tuple[str, ...],
) -> SharedRoot:
    """A directory that is mounted from that server already keeps its place."""
    at, found = str(fileset.path), mount_at(fileset.path)
    there = found.share if found is not None else None
    path = exported or at
    share = Share(share_form, server, path if share_form == NFS else fileset.name)
    if found is not None and there is not None and (there.protocol, there.host) == (share_form, server):
        at, share = found.at, there if exported is None else share
        path = exported or (there.path if share_form == NFS else path)
    allowed = tuple(str(each) for each in settings.allow)
    owner = session.node.owner or (os.geteuid(), os.getegid())
    return SharedRoot(
        fileset.name,
        share,
        path,
        at,
        writers or tuple(_writers(settings, fileset)),
        readers or allowed,
        owner,
    )


def _writers(settings: Settings, fileset: FilesetSettings) -> Iterator[str]:
    """Hosts of the nodes that write it, as this node dials them; a node without an address by its name. Of a root that
    followers share this node is one, and an operator names the others."""
    names = [settings.name if fileset.shared else fileset.writer]
    if fileset.definition is not None and fileset.definition.mode is Mode.REPLICATE:
        names += [name for name in settings.partners if name != fileset.writer]
    for name in names:
        row = settings.partners.get(name)
        address = settings.advertise if name == settings.name else row.address if row is not None else None
        is_of_use = address is not None and not address.is_loopback and not address.is_wildcard
        yield address.host if address is not None and is_of_use else name


def _lines(
    server: str, wanted: SharedRoot, export: ServerExport, mounts: tuple[MountLine, ...]
) -> Iterator[str]:
    yield f"on {server}, in {export.file}:"
    yield from (f"  {line}" for line in export.lines)
    yield f"  then: {export.reload}"
    for each in mounts:
        does = "write" if each.access == "rw" else "only read"
        yield f"on machines that {does} it ({', '.join(each.hosts)}), in /etc/fstab:"
        yield f"  {each.fstab}"
        yield f"  or now: {each.command}"
        if wanted.share.protocol == SMB:
            yield f"  user and password stand in /etc/instep/{wanted.fileset}-{each.access}.smb, of root, mode 0600"
