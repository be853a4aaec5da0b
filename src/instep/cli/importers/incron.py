"""A table of incron and the NFS exports beside it: a tree that others mount, and a program that runs at each change."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from instep.cli.importers.plan import (
    Hook,
    Plan,
    Server,
    Tree,
    fileset_of,
    looks_like_file,
    plan_of,
    refuse,
    servers_of,
)


@dataclass(slots=True)
class Export:
    """An exported directory and its clients with their options."""

    path: str
    clients: dict[str, str] = field(default_factory=dict)


def incron_plan(text: str, path: str, writer: Server, exports: list[Export]) -> Plan:
    """The plan for a table: each watched tree becomes a fileset, its clients by NFS follow it."""
    watched = list(_watches(text, path))
    hosts = [client for export in exports for client in export.clients if not _is_many(client)]
    servers = servers_of(hosts, (writer.name,))
    remarks = (
        []
        if servers
        else [
            "the partners are not in this table: give the exports with --exports, or put their names for s1"
        ]
    )
    if not servers:
        servers = {"s1": Server("s1", "s1")}
    networks = [client for export in exports for client in export.clients if _is_network(client)]
    trees: dict[str, Tree] = {}
    for where, command in watched:
        export = next((one for one in exports if PurePosixPath(where).is_relative_to(one.path)), None)
        root = export.path if export is not None else _root(where)
        clients = [servers[c] for c in export.clients if c in servers] if export is not None else []
        if root not in trees:
            name = fileset_of(PurePosixPath(root).name, [tree.name for tree in trees.values()])
            trees[root] = Tree(name, root, clients or list(servers.values()))
        tree, relative = trees[root], str(PurePosixPath(where).relative_to(root))
        if relative == "global.xml":
            tree.options = ("--recipe", "geoserver")
            tree.accept = ("--recipe", "geoserver", "--param", "auth_file=/etc/instep/geoserver.auth")
            remarks.append(
                f"{command!r} reloaded each GeoServer from {writer.name}; with the recipe each node reloads its own, "
                "and needs /etc/instep/geoserver.auth: instep recipe show geoserver"
            )
            continue
        if relative != "." and looks_like_file(where) and not tree.options:
            tree.options = ("--trigger", relative)
        if "$" in command:
            remarks.append(
                f"{command!r} gets a path from incron; a hook finds all of them in the file that INSTEP_CHANGED names"
            )
        else:
            tree.hooks = (*tree.hooks, Hook(command, () if relative == "." else (f"/{relative}",)))
            remarks.append(
                f"{command!r} ran on {writer.name}; as a hook it runs on each partner, for that partner alone"
            )
    for export in exports:
        for client, options in export.clients.items():
            if "rw" in options.split(","):
                remarks.append(
                    f"{client} could write in {export.path} over NFS; a partner's changes are archived and put back"
                )
            if _is_many(client):
                remarks.append(
                    f"{export.path} was exported to {client}: invite each server of it by its name"
                )
    there = "unmount the export, and take it out of /etc/fstab"
    here = f"take these lines out of {path}"
    said = dict.fromkeys(remarks)
    return plan_of(writer, list(trees.values()), said, networks, stop_there=there, stop_here=here)


def read_exports(text: str, path: str) -> list[Export]:
    """The lines of ``/etc/exports``."""
    found: list[Export] = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        words = re.findall(r'"[^"]*"|[^\s"]+', line.partition("#")[0])
        if not words:
            continue
        export = Export(words[0].strip('"').replace("\\040", " ").rstrip("/") or "/")
        if not export.path.startswith("/"):
            raise refuse("incron", path, f"{words[0]!r} is no exported directory")
        for word in words[1:]:
            client, _, options = word.partition("(")
            if client and not client.startswith("-"):
                export.clients[client] = options.rstrip(")")
        found.append(export)
    return found


def _watches(text: str, path: str) -> list[tuple[str, str]]:
    """The watched path and the command of each line."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = re.split(r"(?<!\\)\s+", line.strip(), maxsplit=2)
        if len(words) != 3 or not words[0].startswith("/"):
            raise refuse("incron", path, f"line {number} is not PATH MASK COMMAND")
        found.append((words[0].replace("\\ ", " ").rstrip("/") or "/", words[2]))
    if not found:
        raise refuse("incron", path, "it watches nothing")
    return found


def _root(where: str) -> str:
    return str(PurePosixPath(where).parent) if looks_like_file(where) else where


def _is_network(client: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F.:]+/\d+", client) is not None


def _is_many(client: str) -> bool:
    return "*" in client or "?" in client or "/" in client or client.startswith("@")
