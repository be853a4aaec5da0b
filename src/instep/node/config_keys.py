"""Every key of ``instep.toml``: how it is read, its default and what it does.

The reference page is made from this.

A key of a later version is accepted with its harmless default only, so that a file cannot promise what this
version does not do.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from instep.core.gates import GATES_MAX, BadGate, parse_gate
from instep.errors import InstepError
from instep.fleet.small_hooks import SIGNALS
from instep.model.definition import FilesetClass, Mode, Preserve
from instep.model.ids import node_name
from instep.model.rollout import Absent, OnFailure, Strategy
from instep.node import values
from instep.node.config_key import NO_DEFAULT, Key
from instep.node.fact_people import read_service
from instep.node.mounts import read_expected
from instep.node.values import BadValue

__all__ = [
    "ARCHIVE",
    "FACT",
    "FILESET",
    "HOOK",
    "HOOKS",
    "HOOKS_MAX",
    "NODE",
    "NO_DEFAULT",
    "PARTNER",
    "ROLLOUT",
    "WITHOUT",
    "Key",
]

LATER = "is not in this version of instep"
KEEP_AND_EXCHANGE = (
    "does not go with switch = exchange, which archives local changes that come shortly before it"
)
PRESERVE_HERE = ("owner", "setuid", "security")
WITHOUT = (*(item.value for item in Preserve), "setuid", "security", "mode", "times", "symlinks")


def _one_of(*choices: str, later: tuple[str, ...] = ()) -> Callable[[object], str]:
    known = values.choice(*choices)

    def read(raw: object) -> str:
        if raw in later:
            raise BadValue(LATER)
        return known(raw)

    return read


def _some_of(*choices: str) -> Callable[[object], tuple[str, ...]]:
    def read(raw: object) -> tuple[str, ...]:
        found = values.strings(raw)
        wrong = [item for item in found if item not in choices]
        if wrong:
            raise BadValue(f"names {', '.join(wrong)}; it can hold {', '.join(choices)}")
        return tuple(sorted(set(found), key=choices.index))

    return read


def _only(harmless: object) -> Callable[[object], object]:
    """A key of a later version: nothing but the value that means "do not"."""

    def read(raw: object) -> object:
        if raw != harmless:
            raise BadValue(LATER)
        return raw

    return read


def _node(raw: object) -> str:
    try:
        return node_name(values.string(raw))
    except InstepError as error:
        raise BadValue(f"is not a node name; {error.hint}") from None


def _nodes(raw: object) -> tuple[str, ...]:
    return tuple(_node(item) for item in values.strings(raw))


def _networks(raw: object) -> tuple[values.IpNetwork, ...]:
    return tuple(values.network(item) for item in values.strings(raw))


def _stage(raw: object) -> object:
    return None if raw == "auto" else values.absolute_path(raw)


def _address_or_off(raw: object) -> values.Address | None:
    return None if raw == "off" else values.address(raw)


def _pattern(raw: object) -> str:
    text = values.string(raw)
    try:
        re.compile(text)
    except re.error as error:
        raise BadValue(f"is not a regular expression: {error}") from None
    return text


def _http(raw: object) -> tuple[str, str]:
    method, _, url = values.string(raw).partition(" ")
    if method not in ("GET", "POST", "PUT", "DELETE", "HEAD") or not re.match(r"https?://[^/\s]+", url):
        raise BadValue('is not a request such as "POST http://localhost:8080/reload"')
    if "@" in url.split("//", 1)[1].split("/", 1)[0]:
        raise BadValue("has a user or password in the URL; put them into a file and name it with auth_file")
    return method, url


def _run(raw: object) -> tuple[str, ...]:
    words = values.strings(raw)
    if not words or not words[0].startswith("/"):
        raise BadValue(
            'is not an argument list that begins with an absolute path, such as ["/usr/local/bin/check"]'
        )
    return words


def _user(raw: object) -> str:
    text = values.string(raw)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", text):
        raise BadValue("is not the name of a user")
    return text


def _systemd(raw: object) -> tuple[str, str]:
    verb, _, unit = values.string(raw).partition(" ")
    verbs = ("reload", "restart", "start", "try-reload-or-restart")
    if verb not in verbs or not re.fullmatch(r"[A-Za-z0-9_@:.\\][A-Za-z0-9_@:.\\-]{0,255}", unit):
        raise BadValue(f'is not one of {", ".join(verbs)} and a unit, such as "reload apache2.service"')
    return verb, unit


def _duration_or_off(raw: object) -> int | None:
    return None if raw == "off" else values.duration_ms(raw)


def _status(raw: object) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or not 100 <= raw <= 599:
        raise BadValue("is not an HTTP status such as 200")
    return raw


one_of, http_status = _one_of, _status  # for the keys that other modules declare


def _gates(raw: object) -> tuple[str, ...]:
    texts = values.strings(raw)
    if len(texts) > GATES_MAX:
        raise BadValue(f"has {len(texts)} gates, the limit is {GATES_MAX}")
    for text in texts:
        try:
            parse_gate(text)
        except BadGate as error:
            raise BadValue(f"holds {text!r}, which {error}") from None
    return tuple(dict.fromkeys(texts))


NODE: tuple[Key, ...] = (
    Key("name", _node, NO_DEFAULT, "This node's name. Certificates carry it; it never changes."),
    Key("listen", values.address, "127.0.0.1:7443", "Where peers connect, with mutual TLS."),
    Key("advertise", values.address, None, "The address that other nodes dial; `listen` when not given."),
    Key("panel", _only("off"), "off", "Listener of the web panel; only `off` in this version."),
    Key("health", _address_or_off, "off", "Where `/live` and `/ready` are answered over HTTP, or `off`."),
    Key("agent", _address_or_off, "off", "Where HAProxy's agent-check is answered, or `off`."),
    Key(
        "probers",
        _networks,
        [],
        "Where balancers ask from; with any named, only these and loopback count as balancers that a drain waits for.",
    ),
    Key(
        "allow_drain",
        _nodes,
        [],
        "Partners that may drain this node with `instep node drain`; nobody by default.",
    ),
    Key("allow", _networks, [], "Networks from which peers may connect; empty means loopback only."),
    Key("poll", values.duration_ms, "30s", "How often a partner without news asks, jittered."),
    Key("drain_linger", values.duration_ms, "1s", "For requests in flight, once balancers know of a drain."),
    Key(
        "rate_limit",
        values.rate_limit,
        "off",
        "Most bytes of contents sent in a second, such as `20MiB`, or `off`.",
    ),
    Key(
        "allow_preserve",
        _some_of(*PRESERVE_HERE),
        [],
        "What a peer's manifest may set here: owner, setuid, security.",
    ),
)

PARTNER: tuple[Key, ...] = (
    Key("replicate", values.boolean, False, "Whether this node's filesets go to that partner at all."),
    Key("data", values.boolean, False, "Whether filesets of class data go there too."),
    Key("hub", values.boolean, False, "Whether lines that this node did not write go there too."),
    Key(
        "address",
        values.address,
        None,
        "Where to dial it; without it only the partner dials. `join` writes it.",
    ),
    Key(
        "pin",
        values.fingerprint,
        None,
        "SHA-256 of its public key: trusted without a common certificate authority.",
    ),
)

FILESET: tuple[Key, ...] = (
    Key("path", values.absolute_path, NO_DEFAULT, "The root directory on this node."),
    Key("writer", _node, NO_DEFAULT, "This node's name: written here. Another name: followed here."),
    Key(
        "origin",
        _node,
        None,
        "Who began the line, where the writer was changed since; else the writer.",
    ),
    Key(
        "mode",
        _one_of(Mode.MIRROR.value, later=("replicate", "shared")),
        "mirror",
        "`mirror`: one writer, partners follow.",
        True,
    ),
    Key(
        "class",
        _one_of(*(c.value for c in FilesetClass)),
        "metadata",
        "`metadata` or `data`; `data` goes only where `data = true`.",
        True,
    ),
    Key(
        "ignore", values.patterns, [], "Gitignore patterns of paths that are never carried or touched.", True
    ),
    Key("include", values.patterns, [], "When not empty, only these patterns are carried.", True),
    Key(
        "preserve",
        _some_of(*(p.value for p in Preserve)),
        [],
        "Kept beyond modes, times and symlinks: owner, xattr, acl, hardlinks, sparse.",
        True,
    ),
    Key("packages", _only([]), [], "Not in this version: directories that are carried as one package.", True),
    Key(
        "gates",
        _gates,
        [],
        "Facts that must agree before a generation is applied: `NAME`, `NAME >=`, `NAME contains`, or with a value.",
        True,
    ),
    Key(
        "publish",
        _one_of("auto", "manual"),
        "auto",
        "`auto`: changes are published by themselves; `manual`: on `instep publish`.",
    ),
    Key("settle", values.duration_ms, "200ms", "Quiet time before an automatic publish."),
    Key("settle_max", values.duration_ms, "10s", "Latest automatic publish while changes go on."),
    Key("trigger", values.relative_path, None, "A file whose change publishes at once after settle."),
    Key("trigger_max", values.duration_ms, "5s", "Latest publish of changes to other files, with a trigger."),
    Key(
        "max_deletions",
        values.max_deletions,
        "50%",
        "More deletions than this (a share, at least 20; or a number; or `off`) need --accept-deletions.",
    ),
    Key(
        "strict",
        values.boolean,
        False,
        "All or nothing: a path that cannot be carried refuses the publish instead of keeping its last entry.",
    ),
    Key(
        "history",
        _one_of("auto", "on", "off"),
        "auto",
        "Whether the writer keeps contents of past generations; `auto`: metadata, and files up to 4 MiB.",
    ),
    Key("to", _nodes, None, "Partners that may have it; every partner that the flags allow when not given."),
    Key(
        "switch",
        _one_of("inplace", "exchange"),
        "inplace",
        "How a generation goes live where it is followed: `inplace`, path by path; `exchange`, the whole root at once.",
    ),
    Key("carry", values.relative_paths, [], "With `exchange`: ignored paths that move to the new tree."),
    Key("linger", values.duration_ms, "1m", "With `exchange`: how long the old tree stays for open readers."),
    Key(
        "drift",
        _one_of("revert", "keep", later=("offer",)),
        "revert",
        "`revert`: archive a local change and restore; `keep`: only report it.",
    ),
    Key(
        "stage",
        _stage,
        "auto",
        "Folder for staging, journal and archive; `auto`: beside the root where possible.",
    ),
    Key("without", _some_of(*WITHOUT), [], "What this node's file system cannot keep and is given up here."),
    Key("observe", values.boolean, False, "Compare and report, never write."),
    Key(
        "service",
        read_service,
        None,
        'The program that uses the tree, for the facts `service` and `access`: `{ unit = "tomcat10.service" }`, '
        '`{ pid_file = "/run/nginx.pid" }` or `{ user = "tomcat" }`.',
    ),
    Key(
        "expect_mount",
        read_expected,
        None,
        "The kind of file system that must hold the root, such as `nfs4` or `nfs4 on /mnt/maps` (`any on /mnt/maps`).",
    ),
)

ARCHIVE: tuple[Key, ...] = (
    Key("keep_last", values.count, 10, "Generations whose replaced files stay at least."),
    Key("keep_within", values.duration_ms, "30d", "Age up to which replaced files stay at least."),
    Key("max_share", values.percent, "20%", "Share of the file system above which status warns."),
)

HOOKS = ("validate", "freeze", "thaw", "reload", "probe", "repair", "on_failure")
HOOKS_MAX = 32
"""Hooks in one slot."""

HOOK: tuple[Key, ...] = (
    Key("run", _run, None, "A program and its arguments; no shell."),
    Key("http", _http, None, "A method and a URL."),
    Key("timeout", values.duration_ms, "30s", "Deadline of one attempt."),
    Key("retries", values.count, 0, "Further attempts after a failure."),
    Key(
        "auth_file", values.absolute_path, None, "A file (mode 0600) with `user:password` or a bearer token."
    ),
    Key("expect_status", _status, None, "The status that means success; any 2xx when not given."),
    Key("expect_body", values.string, None, "A text that the answer must contain."),
    Key("headers_file", values.absolute_path, None, "A file (mode 0600) with lines such as `X-Key: secret`."),
    Key("body", values.string, None, "What the request sends."),
    Key(
        "tls",
        _one_of("strict", "noverify", "none"),
        "strict",
        "`strict`: only certificates of a known authority; `noverify`: any certificate; `none`: plain HTTP to other "
        "machines. Status warns of the last two.",
    ),
    Key("user", _user, None, "Who `run` runs as, with that user's groups only; the daemon must be root."),
    Key("signal", _one_of(*SIGNALS), None, "For the process in `pid_file`: HUP, USR1, USR2, WINCH, TERM."),
    Key("pid_file", values.absolute_path, None, "Where the process of `signal` writes its number."),
    Key("touch", values.absolute_path, None, "A file whose time is set to now; made when it is missing."),
    Key("systemd", _systemd, None, "`reload`, `restart`, `start` or `try-reload-or-restart`, and a unit."),
    Key("tree", values.boolean, False, "Only `validate`: `INSTEP_TREE` is the whole tree as it will be."),
    Key("paths", values.patterns, [], "Gitignore patterns: it runs only when a changed path matches."),
)

ROLLOUT: tuple[Key, ...] = (
    Key(
        "strategy",
        _one_of(*(strategy.value for strategy in Strategy)),
        "auto",
        "`auto`: partners with a reload hook one at a time, the others when ready; `together`: all at once when all "
        "are staged; `rolling`: in waves, each drained; `canary`: the first wave is watched before the next.",
        True,
    ),
    Key("batch", values.count, 1, "How many partners a wave holds.", True),
    Key("order", _nodes, [], "Partners that go first, in this order; the others follow by name.", True),
    Key("quorum", values.percent, "100%", "Share of the reachable partners that must be staged first.", True),
    Key(
        "absent",
        _one_of(*(absent.value for absent in Absent)),
        "skip",
        "`skip`: unreachable partners come later; `wait`: the rollout waits for them.",
        True,
    ),
    Key(
        "on_failure",
        _one_of(*(choice.value for choice in OnFailure)),
        "put_back",
        "`put_back`: when a partner fails, all that switched return to the generation before; `stop`: no more switch.",
        True,
    ),
    Key(
        "confirm_within",
        _duration_or_off,
        "off",
        "Without `instep rollout confirm` within this time everybody returns to the generation before.",
        True,
    ),
    Key(
        "finish_within",
        values.duration_ms,
        "5m",
        "A partner that began is live or back within this time.",
        True,
    ),
    Key("canary_for", values.duration_ms, "10s", "How long the first wave of a canary is watched.", True),
)

FACT: tuple[Key, ...] = (
    Key("file", values.absolute_path, None, "A file that holds the fact."),
    Key("match", _pattern, None, "Regular expression over the file or output; its first group is the fact."),
    Key("run", _run, None, "A program and its arguments, no shell; what it prints within 10 s is the fact."),
    Key("list", values.absolute_path, None, "A directory; the names in it are the fact, one a line."),
    Key("digest_of", values.absolute_path, None, "A file whose digest is the fact."),
    Key("fingerprint_of", values.absolute_path, None, "A secret file; a slow fingerprint of it is the fact."),
    Key("value", values.string, None, "The fact itself."),
)
