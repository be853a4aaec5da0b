"""``python -m docs.generator.pages``: writes the reference pages and man pages from the code they describe.

``--check`` only compares and exits 1 when a page is not current; a test does that.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

import instep
from docs.generator.control_page import control_page
from docs.generator.machines_page import machines_page
from docs.generator.rest_page import rest_page
from docs.generator.room_map import with_rooms
from instep import errors
from instep.api.event_kinds import NOTES, WARNINGS
from instep.cli.main import cli
from instep.cli.session import InstepCommand
from instep.node.config import balancers, definitions, filesets, golden, hooks, places, settings
from instep.node.config.copies import CopiesSettings
from instep.node.config.external import ExternalSettings
from instep.node.config.facts import FactSettings
from instep.node.config.keys import Key, keys_of, sections_of
from instep.node.config.outside.notify import NotifySettings
from instep.node.config.outside.oidc import OidcSettings
from instep.node.config.partners import PartnerSettings
from instep.node.config.shared_parts.backups import BackupDatabaseKeys, BackupSettings
from instep.node.config.shared_parts.jobs import JobSettings, RequestSettings
from instep.node.config.shared_parts.pools import PoolSettings
from instep.node.config.shared_parts.standby import StandbySettings
from instep.node.config.sync import SyncKindSettings, SyncSettings
from instep.store.port import EVENTS_KEPT

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = "docs/architecture.md"
_NOTE = "<!-- Made by python -m docs.generator.pages; do not edit. -->\n"


def pages() -> dict[str, str]:
    """Path below the repository to text, for every generated page."""
    found = {
        "docs/reference/settings.md": settings_page(),
        "docs/reference/commands.md": commands_page(),
        "docs/reference/errors.md": errors_page(),
        "docs/reference/events.md": events_page(),
        "docs/reference/control.md": control_page(_NOTE),
        "docs/reference/rest.md": rest_page(_NOTE),
        ARCHITECTURE: with_rooms((ROOT / ARCHITECTURE).read_text(), ROOT / "src/instep"),
        "docs/spec/machines.md": machines_page(_NOTE),
        "packaging/man/instep.1": man_page("instep", cli),
    }
    for name, command in _top_level():
        found[f"packaging/man/instep-{name}.1"] = man_page(f"instep {name}", command)
    return found


# Settings -----------------------------------------------------------------------------------------------


SLOTS = ", ".join(slot.name for slot in sections_of(hooks.HooksSettings))
TABLES: tuple[tuple[str, str, type], ...] = (
    ("The node", "", settings.Settings),
    ("Partners", "[partners.NAME]", PartnerSettings),
    ("Filesets", "[filesets.NAME]", filesets.FilesetSettings),
    ("Archive", "archive = { ... } of a fileset", filesets.ArchivePolicy),
    ("Hooks", f"{SLOTS} in [filesets.NAME.hooks]", hooks.HookSettings),
    ("Golden answers", "[filesets.NAME.golden]", golden.GoldenSettings),
    ("Golden requests", "[filesets.NAME.golden.requests.REQUEST]", golden.GoldenRequest),
    ("Parts that are not carried", "[[filesets.NAME.external]]", ExternalSettings),
    ("Copies wanted", "[[filesets.NAME.copies]]", CopiesSettings),
    ("Rollout", "[filesets.NAME.rollout]", definitions.RolloutKeys),
    ("Facts", "NAME = { ... } in [facts]", FactSettings),
    ("Balancers", "[balancers.NAME]; reload = { ... } in it is a hook", balancers.BalancerSettings),
    (
        "Sync profiles",
        "[sync.NAME]; on_collision, on_sync_failed in [sync.NAME.hooks] are hooks",
        SyncSettings,
    ),
    (
        "Kinds of a sync profile",
        "[sync.NAME.kinds.KIND]; validate = { ... } in it is a hook",
        SyncKindSettings,
    ),
    ("Notices", "[notify.NAME]; send = { ... } in it is a hook", NotifySettings),
    ("Signing in by a provider", "[oidc]", OidcSettings),
    ("A balancer's ports", "http, https, websocket = { ... } in [balancers.NAME]", balancers.PortKeys),
    ("Jobs", "[jobs.NAME]", JobSettings),
    ("Requests", "[requests.KIND]", RequestSettings),
    ("Pools", "[pools.NAME]", PoolSettings),
    ("Standby services", "[standby.SERVICE]", StandbySettings),
    ("Backups", "[backup]", BackupSettings),
    ("The database of a backup", "database = { ... } in [backup]", BackupDatabaseKeys),
    ("A node's place", "address, and each of backends, where they are tables", places.PlaceKeys),
)
"""The tables of the page: title, where it stands in the file, what declares its keys."""


def settings_page() -> str:
    parts = [
        "# Settings",
        _NOTE,
        "`instep.toml` in the node directory. Unknown keys are errors. Durations read `200ms`, `5s`, `10m`, "
        "`30d`; sizes `64KiB`. Keys marked *travels* are set where the fileset is written and are an error "
        "where it is followed. A change is taken by a running daemon at once; keys marked *restart* are only "
        "read when it starts.",
    ]
    for title, where, table in TABLES:
        parts.append(f"\n## {title}\n" + (f"\n`{where}`\n" if where else ""))
        parts.append("| key | default | |\n|---|---|---|")
        parts += [_setting(key) for key in keys_of(table)]
    return "\n".join(parts) + "\n"


@functools.cache
def _sentences(module: str) -> dict[str, str]:
    """``Class.field`` to the text below the field."""
    found = {}
    for declared in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(declared, ast.ClassDef):
            for field, text in itertools.pairwise(declared.body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    assert isinstance(text.value, ast.Constant)
                    found[f"{declared.name}.{ast.unparse(field.target)}"] = str(text.value.value)
    return found


def _setting(key: Key) -> str:
    default = (
        "required" if key.is_required else "-" if key.default is None else f"`{json.dumps(key.default)}`"
    )
    module, _, field = key.declared.partition(":")
    sentence = " ".join(_sentences(module)[field].split())
    marks = ("*travels* · " if key.travels else "") + ("*restart* · " if key.needs_restart else "")
    return f"| `{key.name}` | {default} | {marks}{sentence} |"


# Events -------------------------------------------------------------------------------------------------


def events_page() -> str:
    parts = [
        "# Events",
        _NOTE,
        "`instep events` lists them, `--follow` goes on with new ones, and with the daemon stopped they are read from "
        "the node's state. Each has its kind in `what`, and is a line of the daemon's log with the kind in `event`: "
        "warnings are warnings there. The newest "
        f"{EVENTS_KEPT:,} are kept.",
    ]
    for title, kinds in (("Warnings", WARNINGS), ("Notes", NOTES)):
        parts += [f"\n## {title}\n", "| kind | says |\n|---|---|"]
        parts += [f"| `{kind}` | {says} |" for kind, says in sorted(kinds.items())]
    return "\n".join(parts) + "\n"


# Commands -----------------------------------------------------------------------------------------------


def _top_level() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli, info_name="instep")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        yield name, command


def walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """The command and all below it, each with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        for name in command.commands:
            yield from walk(f"{path} {name}", command.commands[name])


def commands_page() -> str:
    parts = ["# Commands", _NOTE, "Every command also takes `--dir DIR` and `--json`.\n"]
    for name, command in _top_level():
        for path, one in walk(f"instep {name}", command):
            parts.append(f"## `{path}`\n")
            parts.append(_description(one) + "\n")
            if isinstance(one, click.Group):
                continue
            parts.append(f"```\n{_usage(path, one)}\n```\n")
            parts += [f"- {line}" for line in _options(one)]
            if isinstance(one, InstepCommand) and one.example:
                parts.append(f"\nExample:\n\n```\n{one.example}\n```\n")
    return "\n".join(parts).rstrip() + "\n"


def _description(command: click.Command) -> str:
    return re.sub(r"[ \t]*\n[ \t]*", "\n", (command.help or "").strip())


def _usage(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path)
    return " ".join([path, *command.collect_usage_pieces(context)])


def _options(command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name="x")
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or parameter.name in ("dir", "json"):
            continue
        record = parameter.get_help_record(context)
        if record is not None:
            yield f"`{record[0]}`: {record[1]}".rstrip(": ")


# Errors -------------------------------------------------------------------------------------------------


def errors_page() -> str:
    parts = ["# Errors", _NOTE, "The exit code is the family's; the code says what exactly.\n"]
    parts.append("| family | exit code | retry | |\n|---|---|---|---|")
    for family in _families():
        says = (family.__doc__ or "").strip().splitlines()[0]
        parts.append(f"| `{family.code}` | {family.exit_code} | {family.retry.value} | {says} |")
    parts += ["\n## Codes\n", "`…` stands for a value.\n"]
    parts += ["| code | exit code | reason | next step |", "|---|---|---|---|"]
    raised = sorted(set(_raised()))
    told = {code for code, _, reason, _ in raised if _says_something(reason)}
    for code, exit_code, reason, hint in raised:
        if code in told and not _says_something(reason):
            continue
        parts.append(f"| `{code}` | {exit_code} | {reason} | {hint} |")
    return "\n".join(parts) + "\n"


def _says_something(reason: str) -> bool:
    return any(character.isalpha() for character in reason)


def _families() -> list[type[errors.InstepError]]:
    found: list[type[errors.InstepError]] = [errors.InstepError, *errors.InstepError.__subclasses__()]
    return sorted(found, key=lambda one: one.exit_code)


def _raised() -> Iterator[tuple[str, int, str, str]]:
    """Every error in the sources that has a code of its own: code, exit code, reason, hint."""
    families = {family.__name__: family for family in _families()}
    for path in sorted(Path(instep.__file__).parent.rglob("*.py")):
        if "testing" in path.parts:
            continue
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or not call.args:
                continue
            family = families.get(call.func.id)
            named = {keyword.arg: keyword.value for keyword in call.keywords}
            code = named.get("code")
            if family is None or not isinstance(code, ast.Constant) or not isinstance(code.value, str):
                continue
            yield code.value, family.exit_code, _shape(call.args[0]), _shape(named.get("hint"))


def _shape(node: ast.expr | None) -> str:
    """The constant parts of a text, with an ellipsis for each value."""
    if node is None:
        return ""
    if isinstance(node, ast.Constant):
        text = str(node.value or "")
    elif isinstance(node, ast.JoinedStr):
        parts = (one.value if isinstance(one, ast.Constant) else "…" for one in node.values)
        text = "".join(str(part) for part in parts)
    else:
        text = "…"
    return text.replace("|", "\\|").replace("\n", " ")


# Man pages ----------------------------------------------------------------------------------------------


def man_page(path: str, command: click.Command) -> str:
    """A page of section 1 in roff, without a date, so that it only changes when the command does."""
    title = path.replace(" ", "-")
    summary = _description(command).split("\n")[0]
    lines = [f'.TH "{title.upper()}" "1" "" "instep" "instep"', ".SH NAME", f"{title} \\- {_roff(summary)}"]
    lines += [".SH SYNOPSIS"]
    below = [one for one in walk(path, command) if not isinstance(one[1], click.Group)]
    if command is cli:
        lines += [
            f".B {_roff(path)}",
            "COMMAND ...",
            ".SH DESCRIPTION",
            _roff(_description(command)),
            ".SH COMMANDS",
        ]
        for name, one in _top_level():
            lines += [".TP", f".BR instep-{name} (1)", _roff(_description(one).split(chr(10))[0])]
    else:
        for words, one in below:
            lines += [f".B {_roff(_usage(words, one))}", ".br"]
        lines.append(".SH DESCRIPTION")
        for words, one in below:
            if len(below) > 1:
                lines.append(f".SS {_roff(words)}")
            lines.append(_roff(_description(one)))
            for option in _options(one):
                flag, _, text = option.partition(": ")
                lines += [".TP", f".B {_roff(flag.strip('`'))}", _roff(text)]
            if isinstance(one, InstepCommand) and one.example:
                lines += [".PP", "Example:", ".PP", ".nf", _roff(one.example), ".fi"]
    lines += [".SH SEE ALSO", ".BR instep (1)"]
    return "\n".join(line for line in lines if line) + "\n"


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in escaped.split("\n"))


def write(check: bool) -> int:
    """Write what changed, or with ``check`` only name it; the number of pages that were not current."""
    wanted = pages()
    stale = 0
    for name, text in wanted.items():
        path = ROOT / name
        if path.exists() and path.read_text() == text:
            continue
        stale += 1
        print(("not current: " if check else "wrote ") + name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for path in sorted((ROOT / "packaging/man").glob("*.1")):
        if str(path.relative_to(ROOT)) not in wanted:
            stale += 1
            print(f"no command any more: {path.relative_to(ROOT)}")
            if not check:
                path.unlink()
    return stale


if __name__ == "__main__":
    is_check = "--check" in sys.argv[1:]
    sys.exit(1 if write(is_check) and is_check else 0)
