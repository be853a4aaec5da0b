"""What ``instep.toml`` means, as text: every key with its default and its refusals, the rules between keys, the edits.

The transcripts lie in ``configuration/``. Written anew by ``python -m tests.golden.test_configuration``; the difference
is then to be read, for an operator's file means something else afterwards.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from docs.generator.pages import TABLES
from instep.cli.main import cli
from instep.errors import ConfigError, InstepError
from instep.model.ids import FilesetName, LineId, NodeName
from instep.model.rollout import decode_policy
from instep.node.config.editing import edits
from instep.node.config.editing.writer_edit import change_writer
from instep.node.config.keys import Key, keys_of
from instep.node.config.kinds import BadValue
from instep.node.config.loading import load, parse
from instep.node.config.settings import Settings
from instep.node.config.values import network
from instep.node.directory import NodeDirectory
from tests.golden.configuration_cases import SECTIONS, TRIED, WRITTEN

KEPT = Path(__file__).parent / "configuration"
ACCEPTED_SHOWN = 4
FLAGS = {"replicate": True, "data": True, "hub": False}
VALUE_IN_A_REFUSAL = re.compile(r"(names |holds |has for |for )\S.*?(; |, which |a value |$)")
"""Refusals that differ in this are one line of the transcript."""


def plain(value: Any) -> Any:
    """Settings as nested dictionaries of texts; the travelling part is decoded."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "__struct_fields__"):
        names = value.__struct_fields__
        return {
            name: plain(
                decode_policy(value.rollout)
                if name == "rollout" and isinstance(value.rollout, bytes)
                else getattr(value, name)
            )
            for name in names
        }
    if isinstance(value, Mapping):
        return {str(getattr(key, "value", key)): plain(each) for key, each in value.items()}
    if isinstance(value, tuple) and value and all(dataclasses.is_dataclass(each) for each in value):
        return {str(index): plain(each) for index, each in enumerate(value)}
    if isinstance(value, frozenset):
        return repr(sorted(value))
    return str(value) if isinstance(value, Path) else repr(value)


def flat(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if not isinstance(tree, dict):
        yield path, tree
        return
    for key, value in tree.items():
        yield from flat(value, f"{path}.{key}" if path else key)


def settings_lines(settings: Settings) -> dict[str, str]:
    found = dict(flat(plain(settings)))
    found.pop("fingerprint")
    return {key: value for key, value in found.items() if not key.startswith("warnings")}


def outcome(text: str, directory: Path | None = None) -> list[str]:
    """Each problem in a line; or the warnings."""
    try:
        settings = parse(text, directory=directory)
    except ConfigError as error:
        problems: Any = error.facts["problems"]
        return [
            f"line {each['line']}  {each['key']} = {json.dumps(each['value'])}  {each['why']}"
            for each in problems
        ]
    return [f"warned  {each}" for each in settings.warnings] or ["right"]


# Every key ------------------------------------------------------------------------------------------------------


def transcript_of_keys() -> str:
    lines: list[str] = []
    tried = [one for row in TRIED.strip().splitlines() for one in row.split(" | ")]
    for title, _, table in TABLES:
        place, bases = SECTIONS[title]
        for key in keys_of(table):
            base = bases.get(key.name, bases[""])
            default = (
                "required" if key.is_required else "-" if key.default is None else json.dumps(key.default)
            )
            lines += ["", f"{title}: {key.name}  (default {default})"]
            lines += [f"    {line}" for line in tries(base, place, key, tried)]
    return "\n".join(lines).strip() + "\n"


def tries(base: str, place: str, key: Key, tried: list[str]) -> Iterator[str]:
    """One line for each way in which the key's value is wrong, with the first wrong value; and the results of right
    ones."""
    head = base if place and place in base else base + place
    try:
        before = settings_lines(parse(base))
    except ConfigError:
        before = {}
    refused: dict[str, list[tuple[str, str]]] = {}
    accepted: list[str] = []
    known: dict[str, str] = {}  # a value that the key alone refuses so, the whole file refuses alike
    for text in tried:
        alone = refusal_of(key, text)
        if alone in known:
            refused[known[alone]].append((text, ""))
            continue
        quoted = f"{head}{key.name} = {text}\n"
        try:
            now = settings_lines(parse(quoted))
        except ConfigError as error:
            problems: Any = error.facts["problems"]
            why = "; ".join(f"{each['key']} {each['why']}" for each in problems).replace("\n", "\\n")
            why = re.sub("(is not a regular expression): .*", r"\1", why)  # Python's own words
            form = VALUE_IN_A_REFUSAL.sub(r"\1\2", why)
            refused.setdefault(form, []).append((text, why))
            if alone is not None:
                known[alone] = form
            continue
        changed = {name: value for name, value in now.items() if before.get(name) != value}
        if not before:
            changed = {name: value for name, value in changed.items() if text.strip('"') in value}
        told = ", ".join(f"{name} = {value}" for name, value in changed.items()) or "no change"
        accepted.append(f"{text}  ->  {told}")
    for alike in refused.values():
        more = " and others" if len(alike) > 1 else ""
        yield f"refused {alike[0][0]}{more}  {alike[0][1]}"
    yield from accepted[:ACCEPTED_SHOWN]
    if len(accepted) > ACCEPTED_SHOWN:
        yield "and others"


def refusal_of(key: Key, text: str) -> str | None:
    try:
        key.kind(tomllib.loads(f"v = {text}")["v"])
    except BadValue as error:
        return VALUE_IN_A_REFUSAL.sub(r"\1\2", str(error))
    return None


# The rules between keys -----------------------------------------------------------------------------------------


def transcript_of_documents() -> str:
    """Documents, each with its outcome after ``#>``; the outcomes are made anew."""
    parts = (KEPT / "documents.txt").read_text().split("#= ")
    found = [parts[0]]
    for part in parts[1:]:
        title, _, body = part.partition("\n")
        text = "".join(line for line in body.splitlines(keepends=True) if not line.startswith("#>"))
        text = text.rstrip("\n") + "\n"
        # A document without a final line end, such as one that breaks off, ends in ``#-``.
        cut = text.removesuffix("#-\n") if text.endswith("#-\n") else text
        told = "".join(f"#> {line}\n" for line in outcome(cut, Path("/node")))
        found.append(f"{title}\n{text}{told}\n")
    return "#= ".join(found)


# Edits ------------------------------------------------------------------------------------------------------------

MINE = """# mine
name = "main"   # who
allow = ["10.0.0.0/8"]  # office

[partners.s1]  # first
replicate = true

[filesets.data]   # kept
path = "/srv/data"
writer = "s1"
hooks = { reload = { touch = "/run/x" } }   # inline
"""
HOOK = {"run": ["/bin/sh", "-c", "one\ntwo\n"], "timeout": "5s"}
READY = {"ignore": ["*.log"], "hooks": {"validate": HOOK, "reload": [{"touch": "/run/y"}]}, "switch": "exchange"}  # fmt: skip
LINE = LineId(FilesetName("data"), NodeName("s1"))
FULL = """name = "s1"
[filesets.data]
path = "/srv/data"
writer = "s1"
class = "data"
ignore = ["*.tmp"]
include = ["a"]
preserve = ["acl", "owner"]
gates = ["version"]
settle = "5ms"
[filesets.data.rollout]
strategy = "canary"
batch = 3
order = ["s2", "s1"]
quorum = "50%"
absent = "wait"
on_failure = "stop"
confirm_within = "2m"
finish_within = "10m"
canary_for = "1500ms"
"""


def scenarios() -> dict[str, tuple[str, Callable[[NodeDirectory], object]]]:
    e = edits
    definition = parse(FULL).filesets[FilesetName("data")].definition
    main, s1 = NodeName("main"), NodeName("s1")
    return {
        "create": ("", lambda n: e.create(n, {"name": "a", "listen": "127.0.0.1:7443", "allow": ["10.0.0.0/8"]})),
        "add a fileset": (MINE, lambda n: e.add_fileset(n, "cat", "/srv/cat", {"ignore": ["logs/"], "to": ["s1"]})),
        "add it with a recipe": (MINE, lambda n: e.add_fileset(n, "cat", "/srv/cat", READY)),
        "add one that is there": (MINE, lambda n: e.add_fileset(n, "data", "/srv/other", {})),
        "accept": (MINE, lambda n: e.accept_fileset(n, "docs", "/srv/docs", "s1", {"observe": True}, ready=READY)),
        "accept again": (MINE, lambda n: e.accept_fileset(n, "data", "/srv/data", "s1", {"observe": True, "drift": "keep"})),
        "accept from another": (MINE, lambda n: e.accept_fileset(n, "data", "/srv/data", "s2", {})),
        "accept with another recipe": (MINE, lambda n: e.accept_fileset(n, "data", "/srv/data", "s1", {}, ready=READY)),
        "set": (
            MINE,
            lambda n: e.set_fileset(
                n, "data", {
                    "settle": "5ms", "archive.keep_last": "3", "to": "s1, s2", "without": "owner,acl", "strict": "true",
                    "max_deletions": "9", "carry": '["logs/"]', "hooks.reload.timeout": "9s", "stage": "/srv/stage",
                    "expect_mount": "nfs4 on /srv", "linger": "0", "writer": "42",
                },
            ),
        ),
        "set what is unset": (MINE, lambda n: e.set_fileset(n, "data", {"hooks.reload": "", "trigger": "", "golden.url": ""})),
        "set lists and keys below": (
            FULL, lambda n: e.set_fileset(n, "data", {"rollout.order": "s3, s2", "hooks.reload.run": "/bin/true, x", "mode": ""}),
        ),
        "set below an array": (
            FULL + '[[filesets.data.hooks.reload]]\ntouch = "/run/x"\n',
            lambda n: e.set_fileset(n, "data", {"hooks.reload.timeout": "5s"}),
        ),
        "set a float and a date": (MINE, lambda n: e.set_fileset(n, "data", {"settle": "1.5", "trigger": "2020-01-01"})),
        "set a wrong value": (MINE, lambda n: e.set_fileset(n, "data", {"settle": "soon", "setle": "1s"})),
        "set no key": (MINE, lambda n: e.set_fileset(n, "data", {"archive.": "1"})),
        "set below a value": (MINE, lambda n: e.set_fileset(n, "data", {"path.x": "1"})),
        "set of another": (MINE, lambda n: e.set_fileset(n, "nothing", {"settle": "5ms"})),
        "remove a fileset": (MINE, lambda n: e.remove_fileset(n, "data")),
        "list a partner": (MINE, lambda n: e.set_partner(n, "s2", {"address": "10.0.0.2:7443"})),
        "list it with a link": (MINE, lambda n: e.set_partner(n, "s2", {**FLAGS, "pin": "ab" * 32})),
        "change a partner": (MINE, lambda n: e.set_partner(n, "s1", {"data": True, "replicate": None, "hub": False})),
        "remove a partner": (MINE, lambda n: e.remove_partner(n, "s1")),
        "allow": (MINE, lambda n: e.allow_networks(n, ["10.1.0.0/16", "10.0.0.0/8"])),
        "allow the first": (FULL, lambda n: e.allow_networks(n, ["10.1.0.0/16"])),
        "disallow": (MINE, lambda n: e.disallow_networks(n, [network("10.0.0.0/8")])),
        "change the writer at the new one": (MINE, lambda n: change_writer(n, LINE, main, definition, None)),
        "change the writer at the old one": (FULL, lambda n: change_writer(n, LINE, main, None, "10.0.0.9:7443")),
        "change the writer elsewhere": (MINE, lambda n: change_writer(n, LINE, NodeName("s2"), None, "10.0.0.9:7443")),
        "change it back": (
            MINE,
            lambda n: (change_writer(n, LINE, main, definition, None), change_writer(n, LINE, s1, None, "1.2.3.4:5")),
        ),
    }  # fmt: skip


def transcript_of_edits() -> str:
    lines: list[str] = []
    for title, (text, change) in scenarios().items():
        with tempfile.TemporaryDirectory() as made:
            node = NodeDirectory(Path(made) / "node")
            if text:
                node.create()
                node.config.write_text(text)
            lines += ["", f"#= {title}"]
            try:
                change(node)
            except InstepError as error:
                facts = json.dumps(error.facts, sort_keys=True, default=str)
                told = f"{error.error_code}: {error.reason}; {error.hint}; {facts}"
                lines.append("#> " + told.replace(made, ""))
                assert node.config.read_text() == text, "a refused edit writes nothing"
                continue
            lines += node.config.read_text().splitlines()
    return "\n".join(lines).strip() + "\n"


# config show --------------------------------------------------------------------------------------------------------

SHOWN = (
    WRITTEN
    + """[filesets.maps.hooks]
reload = [{ touch = "/run/x" }, { run = ["/bin/true"], retries = 2 }]
validate = { http = "GET http://localhost/", tls = "strict" }
[filesets.maps.golden]
url = "http://localhost"
requests = { a = { request = "GET /", ignore = ["x"] } }
[filesets.docs]
path = "/srv/docs"
writer = "s1"
archive = { keep_last = 3 }
[partners.s1]
replicate = true
[facts]
v = { file = "/v" }
[balancers.maps]
filesets = ["maps"]
http = "off"
https = { listen = "0.0.0.0:443", backend = 8443 }
file = "/etc/haproxy.cfg"
reload = { systemd = "reload haproxy.service" }
backends = { s1 = { https = "10.0.0.5:8443" } }
"""
)


def transcript_of_show() -> str:
    with tempfile.TemporaryDirectory() as made:
        node = NodeDirectory(Path(made))
        node.create()
        node.config.write_text(SHOWN)
        told = CliRunner().invoke(cli, ["--dir", made, "config", "show", "--origin"])
    assert told.exit_code == 0, told.output
    return "\n".join(line.rstrip() for line in told.output.splitlines()) + "\n"


TRANSCRIPTS: Mapping[str, Callable[[], str]] = {
    "keys.txt": transcript_of_keys,
    "documents.txt": transcript_of_documents,
    "edits.txt": transcript_of_edits,
    "show.txt": transcript_of_show,
}


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_the_configuration_means_what_it_meant(name: str) -> None:
    found, kept = TRANSCRIPTS[name](), (KEPT / name).read_text()
    assert found == kept, f"{name} changed; python -m tests.golden.test_configuration writes it anew"


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    node = NodeDirectory(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    assert (caught.value.error_code, caught.value.hint) == ("no_node", f"instep --dir {tmp_path} init")
    for raw, code, told in (
        (b"x" * ((1 << 20) + 1), "unreadable_configuration", "larger than 1.0 MiB"),
        (b'name = "a"\n# \xff\n', "bad_configuration", "1 problem"),
    ):
        node.config.write_bytes(raw)
        with pytest.raises(ConfigError, match=told) as caught:
            load(tmp_path)
        assert caught.value.error_code == code
    assert caught.value.facts["problems"] == [{"line": 2, "key": "", "value": None, "why": "is not UTF-8"}]


if __name__ == "__main__":
    for _name, _make in TRANSCRIPTS.items():
        (KEPT / _name).write_text(_make())
