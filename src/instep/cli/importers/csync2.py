"""``csync2.cfg``: groups of hosts and paths, with actions after a change. Each tree of a group becomes a fileset."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
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

_TOKEN = re.compile(r'#[^\n]*|"((?:[^"\\]|\\.)*)"|([{};()])|([^\s{};()"#]+)|(\s+)')
_IGNORED = ("key", "config", "database", "tempdir", "lock-timeout", "ignore")


@dataclass(slots=True)
class Statement:
    """Words that end with a semicolon, or have a block behind them."""

    words: list[str]
    block: list[Statement] | None = None


def csync2_plan(text: str, path: str, given: str | None) -> Plan:
    """The plan for all groups. One host writes: ``given``, or the first one that is not a slave."""
    document = _parsed(text, path)
    groups = [one for one in document if one.words[0] == "group" and one.block is not None]
    if not groups:
        raise refuse("csync2", path, "it has no group")
    hosts = [(host, is_slave) for group in groups for host, is_slave in _hosts(group)]
    senders = [host for host, is_slave in hosts if not is_slave]
    first = given or (senders[0] if senders else None)
    if first is None:
        raise refuse("csync2", path, "every host is a slave")
    known = servers_of([first, *(host for host, _ in hosts)])
    prefixes = {one.words[-1]: one.block for one in document if one.words[0] == "prefix" and one.block}
    senders = list(dict.fromkeys(senders))
    remarks = [f"{known[first].name} writes from now on; csync2 took changes of {', '.join(senders)}"]
    remarks.append("changes on other nodes are archived and put back")
    trees: list[Tree] = []
    for group in groups:
        found, told = _trees(group, known, first, prefixes, [tree.name for tree in trees], path)
        remarks += told
        for tree in found:
            over = next((other for other in trees if _overlap(other.path, tree.path)), None)
            if over is not None:
                remarks.append(
                    f"{tree.path} overlaps {over.path} of another group: only one fileset can have it"
                )
            else:
                trees.append(tree)
    stop = "systemctl stop csync2.socket, and take csync2 out of the tables of cron"
    return plan_of(known[first], trees, remarks, stop_there=stop, stop_here=stop)


def _parsed(text: str, path: str) -> list[Statement]:
    stack: list[list[Statement]] = [[]]
    words: list[str] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise refuse("csync2", path, f"line {text.count(chr(10), 0, at) + 1} cannot be read")
        at = found.end()
        quoted, mark, word, _ = found.groups()
        if quoted is not None or word is not None:
            words.append(re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else word)
        elif mark == ";" and words:
            stack[-1].append(Statement(words))
            words = []
        elif mark == "{" and words:
            inner: list[Statement] = []
            stack[-1].append(Statement(words, inner))
            stack.append(inner)
            words = []
        elif mark == "}" and len(stack) > 1 and not words:
            stack.pop()
        elif mark in ("(", ")"):
            words.append(mark)
        elif mark is not None and mark != ";":
            raise refuse(
                "csync2", path, f"line {text.count(chr(10), 0, at) + 1} begins or ends a block too early"
            )
    if len(stack) > 1 or words:
        raise refuse("csync2", path, "its end is missing")
    return stack[0]


def _hosts(group: Statement) -> Iterator[tuple[str, bool]]:
    """The hosts of a group, and whether each is a slave, which only receives. Of ``name@interface`` the
    name counts: the interface is only csync2's way there."""
    for one in group.block or ():
        is_slave = False
        for word in one.words[1:] if one.words[0] == "host" else ():
            if word in ("(", ")"):
                is_slave = word == "("
            else:
                yield word.partition("@")[0], is_slave


def _trees(
    group: Statement,
    known: dict[str, Server],
    first: str,
    prefixes: dict[str, list[Statement]],
    taken: Sequence[str],
    path: str,
) -> tuple[list[Tree], list[str]]:
    """The filesets of one group for its writer, and remarks about what has no counterpart."""
    name, hosts = " ".join(group.words[1:]) or "group", dict.fromkeys(host for host, _ in _hosts(group))
    if first not in hosts:
        remark = (
            f"group {name} lacks {first}: another cluster is for it: instep import csync2 FILE --writer HOST"
        )
        return [], [remark]
    block = group.block or []
    includes, excludes = (_words(block, key) for key in ("include", "exclude"))
    hooks, own, remarks = _actions(block, name)
    remarks += _without_counterpart(block, name)
    here = {_under(first, each, prefixes): each for each in includes}
    for each in here:
        if not each.startswith("/"):
            raise refuse("csync2", path, f"{each!r} of group {name} is no absolute path")
    trees: list[Tree] = []
    for root, only in _roots(list(here)).items():
        tree_name = fileset_of(name, [*taken, *(tree.name for tree in trees)])
        tree = Tree(tree_name, root, [known[host] for host in hosts if host != first])
        for server in tree.followers:
            there = _under(server.host, here.get(root, root), prefixes)
            if not there.startswith("/"):
                raise refuse("csync2", path, f"{there!r} on {server.host} is no absolute path")
            if there != root:
                tree.roots[server.name] = there
        ignored = [pattern for each in excludes if (pattern := _below(root, each)) is not None]
        flags = [("--include", pattern) for pattern in only] + [("--ignore", pattern) for pattern in ignored]
        tree.options = tuple(word for pair in flags for word in pair)
        tree.hooks, tree.own_hooks = tuple(_for_tree(hooks, root)), tuple(_for_tree(own, root))
        trees.append(tree)
    return trees, remarks


def _words(block: list[Statement], key: str) -> list[str]:
    return [word for one in block if one.words[0] == key for word in one.words[1:]]


def _without_counterpart(block: list[Statement], group: str) -> list[str]:
    remarks = []
    for one in block:
        key, said = one.words[0], " ".join(one.words[1:])
        if key == "auto" and said not in ("none", "first"):
            remarks.append(f"group {group}: auto {said} has no counterpart, for only one node writes")
        elif key.startswith("backup"):
            remarks.append(
                f"group {group}: replaced files go to the archive: archive.keep_within says how long"
            )
        elif key not in ("host", "include", "exclude", "action", "auto", *_IGNORED):
            remarks.append(f"group {group}: {key} has no counterpart")
    return remarks


def _actions(block: list[Statement], group: str) -> tuple[list[Hook], list[Hook], list[str]]:
    """The hooks of followers, those of the writer, and remarks."""
    hooks: list[Hook] = []
    own: list[Hook] = []
    remarks: list[str] = []
    for action in (one.block for one in block if one.words[0] == "action" and one.block is not None):
        patterns = tuple(_words(action, "pattern"))
        is_own = any(one.words[0].startswith("do-local") for one in action)
        for command in (" ".join(one.words[1:]) for one in action if one.words[0] == "exec"):
            if "%%" in command:
                remarks.append(
                    f"group {group}: {command!r} gets changed paths; a hook finds them in the file of INSTEP_CHANGED"
                )
                continue
            hooks.append(Hook(command, patterns))
            own += [hooks[-1]] if is_own else []
    return hooks, own, remarks


def _for_tree(hooks: list[Hook], root: str) -> Iterator[Hook]:
    """The hooks whose patterns can match below a root, with patterns from there."""
    for hook in hooks:
        found = tuple(pattern for each in hook.patterns if (pattern := _below(root, each)) is not None)
        if found or not hook.patterns:
            yield Hook(hook.command, found)


def _under(host: str, path: str, prefixes: dict[str, list[Statement]]) -> str:
    """The path on a host, with ``%prefix%`` replaced."""
    for name, block in prefixes.items():
        for one in block:
            text = " ".join(one.words)
            found = re.fullmatch(r"on\s+(.+?)\s*:\s*(\S+)", text)
            if found is not None and fnmatch(host, found[1]):
                path = path.replace(f"%{name}%", found[2])
                break
    return path.rstrip("/") or "/"


def _roots(paths: list[str]) -> dict[str, list[str]]:
    """The directories that become filesets; a list of patterns where only a part of one is carried."""
    found: dict[str, list[str]] = {}
    placed = [
        (str(PurePosixPath(path).parent) if looks_like_file(path) else path, path)
        for path in dict.fromkeys(paths)
    ]
    for root, path in sorted(placed, key=lambda pair: (pair[0].count("/"), pair[0] != pair[1])):
        pure = PurePosixPath(path)
        over = next((known for known in found if _overlap(known, root)), None)
        if over is None:
            found[root] = [f"/{pure.name}"] if root != path else []
        elif found[over]:
            found[over].append("/" + str(pure.relative_to(over)) + ("" if root != path else "/"))
    return found


def _overlap(one: str, other: str) -> bool:
    return PurePosixPath(one).is_relative_to(other) or PurePosixPath(other).is_relative_to(one)


def _below(root: str, pattern: str) -> str | None:
    """A pattern of csync2 as one of gitignore's from a root on; None where it is for other paths."""
    if "/" not in pattern:
        return pattern
    prefix = root.rstrip("/") + "/"
    return "/" + pattern.removeprefix(prefix) if pattern.startswith(prefix) and pattern != prefix else None
