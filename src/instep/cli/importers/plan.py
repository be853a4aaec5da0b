"""A plan: the commands for each server that turn an old set-up into a cluster, and remarks for the operator.

The order is that of the guide's page on observing: the old program goes on until the partners were compared.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import chain, count
from pathlib import Path, PurePosixPath

from instep.errors import ConfigError

FILE_BYTES_MAX = 1 << 20
_SHELL = re.compile(r"[|&;<>()$`*?\[\]#~=%{}\\\n]")


@dataclass(frozen=True, slots=True)
class Server:
    """A server of the old set-up: its name as a node, and the host by which the others reached it."""

    name: str
    host: str

    @property
    def ip(self) -> str | None:
        try:
            return str(ip_address(self.host))
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Hook:
    """What the old program ran after a change; ``patterns`` are the paths that it was for, all when empty."""

    command: str
    patterns: tuple[str, ...] = ()

    def toml(self) -> str:
        """The hook as ``fileset set`` takes it. A line that needs a shell, or its search path, gets one."""
        is_plain = self.command.startswith("/") and not _SHELL.search(self.command)
        words = self.command.split() if is_plain else ["/bin/sh", "-c", self.command]
        paths = f", paths = {json.dumps(list(self.patterns))}" if self.patterns else ""
        return f"{{ run = {json.dumps(words)}{paths} }}"


@dataclass(slots=True)
class Tree:
    """A directory that becomes a fileset. ``roots`` has the path of a server where it is another one."""

    name: str
    path: str
    followers: Sequence[Server]
    roots: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    """More words of ``fileset add``, as they are typed."""
    accept: tuple[str, ...] = ()
    """More words of ``fileset accept``, as they are typed."""
    hooks: tuple[Hook, ...] = ()
    """For each follower."""
    own_hooks: tuple[Hook, ...] = ()
    """For the writer."""

    def path_on(self, server: Server) -> str:
        return self.roots.get(server.name, self.path)


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One line to type on a node; without a ``command``, something that only a person can do there."""

    node: str
    command: str
    why: str = ""

    @property
    def document(self) -> dict[str, str]:
        return {"node": self.node, "command": self.command, "why": self.why}


@dataclass(frozen=True, slots=True)
class Plan:
    """``remarks`` say what the old set-up meant and the new one does differently."""

    steps: tuple[PlanStep, ...]
    remarks: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """The plan as text: comments, and below each node's name its commands."""
        for remark in self.remarks:
            yield from _comment(remark)
        node = ""
        for step in self.steps:
            if step.node != node:
                node = step.node
                yield ""
                yield from _comment(f"on {node}")
            if step.why:
                yield from _comment(step.why)
            if step.command:
                yield step.command


def _comment(text: str) -> Iterator[str]:
    """No line of an old file's name ends the comment: the plan is made for pasting."""
    return (f"# {line}" for line in text.splitlines())


def plan_of(
    writer: Server,
    trees: Sequence[Tree],
    remarks: Iterable[str],
    networks: Sequence[str] = (),
    *,
    stop_there: str = "",
    stop_here: str = "",
) -> Plan:
    """The plan for one writer. ``stop_there`` says what ends the old program on a follower, ``stop_here`` on
    the writer; ``networks`` may connect."""
    servers = list(dict.fromkeys(server for tree in trees for server in tree.followers))
    steps = [*_begun(writer, servers, trees, networks)]
    if stop_here:
        steps.append(PlanStep(writer.name, "", stop_here))
    for server in servers:
        steps += _taken_over(server, trees, stop_there)
    steps += [_typed(writer, "wait", tree.name, "--timeout", "10m") for tree in trees]
    return Plan((*steps, _typed(writer, "check")), tuple(remarks))


def _begun(
    writer: Server, servers: Sequence[Server], trees: Sequence[Tree], networks: Sequence[str]
) -> Iterator[PlanStep]:
    """The cluster beside the old program: nothing is written on the followers."""
    host = f"[{writer.host}]" if ":" in writer.host else writer.host
    allow = [word for network in networks for word in ("--allow", network)]
    yield _typed(writer, "init", writer.name, "--advertise", f"{host}:7443", *allow, "--start")
    for tree in trees:
        is_for_all = len(tree.followers) == len(servers)
        to = [] if is_for_all else [word for server in tree.followers for word in ("--to", server.name)]
        yield _typed(writer, "fileset", "add", tree.name, tree.path, *tree.options, *to)
        yield from _hooks(writer, tree, tree.own_hooks)
    for server in servers:
        why = "" if server.ip else f"ADDRESS is that of {server.host}"
        yield _typed(writer, "invite", server.name, "--from", server.ip or "ADDRESS", why=why)
    for server in servers:
        yield _typed(server, "join", "TOKEN", "--start", why="the token that invite printed for this server")
        for tree in (tree for tree in trees if server in tree.followers):
            yield _typed(server, "fileset", "accept", tree.name, tree.path_on(server), "--observe")
            why = "shows all that would change; the old program goes on meanwhile"
            yield _typed(server, "diff", tree.name, why=why)


def _taken_over(server: Server, trees: Sequence[Tree], stop: str) -> Iterator[PlanStep]:
    if stop:
        yield PlanStep(server.name, "", stop)
    for tree in (tree for tree in trees if server in tree.followers):
        yield _typed(server, "fileset", "accept", tree.name, tree.path_on(server), "--seed", *tree.accept)
        yield from _hooks(server, tree, tree.hooks)


def _hooks(server: Server, tree: Tree, hooks: Sequence[Hook]) -> Iterator[PlanStep]:
    if hooks:
        many = ", ".join(hook.toml() for hook in hooks)
        value = many if len(hooks) == 1 else f"[{many}]"
        yield _typed(server, "fileset", "set", tree.name, f"hooks.reload={value}")


def _typed(server: Server, *words: str, why: str = "") -> PlanStep:
    return PlanStep(server.name, shlex.join(("instep", *words)), why)


def servers_of(hosts: Iterable[str], taken: Iterable[str] = ()) -> dict[str, Server]:
    """A server for each host: named by the first part of its name where that is free, else by a number."""
    found: dict[str, Server] = {}
    names = set(taken)
    for host in dict.fromkeys(hosts):
        whole = re.sub(r"[^a-z0-9.-]+", "-", host.lower()).strip("-.")[:63].strip("-.")
        first = whole.partition(".")[0]
        is_name = bool(first) and not re.fullmatch(r"[0-9.:]+", host) and ":" not in host
        numbered = (f"s{number}" for number in count(1))
        choice = next(n for n in chain((first, whole) if is_name else (), numbered) if n not in names)
        names.add(choice)
        found[host] = Server(choice, host)
    return found


def looks_like_file(path: str) -> bool:
    """As this machine knows it, else by its name."""
    return Path(path).is_file() or (not Path(path).is_dir() and "." in PurePosixPath(path).name.lstrip("."))


def fileset_of(text: str, taken: Iterable[str]) -> str:
    """A name for a fileset that is not taken yet."""
    base = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:48].strip("-._") or "files"
    names = set(taken)
    return next(name for name in chain((base,), (f"{base}-{n}" for n in count(2))) if name not in names)


def refuse(kind: str, path: str, why: str) -> ConfigError:
    """The error for a file that is not what the operator says."""
    return ConfigError(
        f"{path} is not read as a file of {kind}: {why}",
        hint=f"name the file that {kind} reads",
        code="import_refused",
        file=path,
    )
