"""The control socket takes and answers what ``instep.api`` says: nothing more, nothing unseen, and by name."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import typing
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from instep.api.archive import (
    ArchiveListCommand,
    ArchiveListDocument,
    ArchivePruneCommand,
    ArchivePruneDocument,
)
from instep.api.catalog import COMMANDS
from instep.api.command import Command, Role, command_from
from instep.api.filesets import FilesetShowCommand
from instep.api.lines import PublishCommand
from instep.cli.control import Control
from instep.errors import NotAllowedError, ResourceError, UsageError
from instep.node import commands
from instep.node.access.door import CommandDoor
from instep.node.commands import commands_of
from instep.node.commands.control import ControlServer, Speaker, role_of

COMMANDS_FOLDER = Path(commands.__file__).parent
PREFIX = f"{commands.__name__}."
NOTHING = SimpleNamespace(
    node=SimpleNamespace(runtime=None), balancers=None, housekeeping=None, listeners=None, cluster=None, access=None,
    shared_work=SimpleNamespace(maintenance=None), seat_desk=None,
)  # fmt: skip
HANDLERS = commands_of(cast(Any, NOTHING))


def test_every_command_has_one_handler_that_takes_it_and_returns_its_result() -> None:
    assert {kind.command: kind for kind in HANDLERS} == COMMANDS
    for kind, handler in HANDLERS.items():
        hints = typing.get_type_hints(handler)
        first = next(iter(inspect.signature(handler).parameters))
        assert (hints[first], hints["return"]) == (kind, kind.result()), kind.command


def test_every_command_says_what_it_does_and_under_which_one_name() -> None:
    for name, kind in COMMANDS.items():
        assert kind.command == name
        assert kind.__doc__ and kind.result().__doc__, name


def test_a_directory_of_the_callers_choice_is_for_admins() -> None:
    """Goal: with the daemon's rights it may be any directory, also one with keys. ``path`` of ``explain`` lies in a
    tree."""
    chosen = {"to", "name", "path"}
    found = {
        name: kind.role
        for name, kind in COMMANDS.items()
        if "to" in kind.__struct_fields__ or chosen - {"to"} <= set(kind.__struct_fields__)
    }
    filesets = {"fileset_accept", "fileset_adopt", "fileset_check"}
    assert set(found) == {"archive_restore", "export_git", "restore"} | filesets
    assert set(found.values()) == {Role.ADMIN}


@cache
def functions_of(module: str) -> dict[str, tuple[set[str], set[tuple[str, str]]]]:
    """Of each function in a module of commands the errors that it raises, and the functions that it names."""
    tree = ast.parse((COMMANDS_FOLDER / f"{module.replace('.', '/')}.py").read_text())
    imported = {
        alias.name: (each.module or "").removeprefix(PREFIX)
        for each in ast.walk(tree)
        if isinstance(each, ast.ImportFrom) and (each.module or "").startswith(PREFIX)
        for alias in each.names
    }
    found: dict[str, tuple[set[str], set[tuple[str, str]]]] = {}
    for body in ast.walk(tree):
        if isinstance(body, ast.FunctionDef | ast.AsyncFunctionDef):
            raised, named = found.setdefault(body.name, (set(), set()))
            for node in ast.walk(body):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                    raised.add(ast.unparse(node.exc.func))
                elif isinstance(node, ast.Name):
                    named.add((imported.get(node.id, module), node.id))
                elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
                    named.add((module, node.attr))
    return found


def raised_below(module: str, name: str) -> set[str]:
    """The errors that a function raises, or a function of the package of commands that it calls."""
    errors: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = {(module, name)}
    while waiting:
        at = waiting.pop()
        raised, named = functions_of(at[0]).get(at[1], (set(), set()))
        seen.add(at)
        errors |= {each for each in raised if each.endswith("Error") and each != "AssertionError"}
        waiting |= named - seen
    return errors


def test_a_command_declares_the_errors_that_it_raises() -> None:
    """``ResourceError`` and ``UsageError`` are every command's; errors of the services below are not seen here."""
    undeclared = {}
    for kind, handler in HANDLERS.items():
        module = handler.__module__.removeprefix(PREFIX)
        missing = raised_below(module, handler.__name__) - {
            each.__name__ for each in (*kind.errors, UsageError, ResourceError)
        }
        if missing:
            undeclared[kind.command] = missing
    assert undeclared == {}


@pytest.mark.parametrize(
    ("params", "code", "said"),
    [
        (
            {"dryrun": True, "keep": 3},
            "unknown_parameter",
            "archive_prune does not know dryrun, keep; it takes",
        ),
        ({"dry_run": "yes"}, "bad_parameter", "Expected `bool`, got `str` - at `$.dry_run`"),
        ({"keep_last": "many"}, "bad_parameter", "Expected `int | null`, got `str` - at `$.keep_last`"),
        ({"dry_run": None}, "bad_parameter", "Expected `bool`, got `null` - at `$.dry_run`"),
    ],
)
def test_a_guard_that_is_not_understood_is_refused_and_not_ignored(
    params: dict[str, Any], code: str, said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        command_from(ArchivePruneCommand, params)
    assert refused.value.error_code == code
    assert said in refused.value.reason
    assert "instep stop, then: instep start" in str(refused.value.hint)


NUMBERS = [
    (kind, field.encode_name)
    for kind in COMMANDS.values()
    for field in msgspec.structs.fields(kind)
    if re.search(r"\b(int|float)\b", str(field.type))
]


@pytest.mark.parametrize(("kind", "name"), NUMBERS, ids=lambda each: getattr(each, "command", each))
def test_a_number_without_bounds_is_refused(kind: type[Command[Any]], name: str) -> None:
    """Goal: a time beyond all dates, or a count beyond the database, broke off the answer."""
    needed = {
        field.encode_name: True if field.type is bool else 1 if "int" in str(field.type) else "x" * 12
        for field in msgspec.structs.fields(kind)
        if field.required
    }
    command_from(kind, {**needed, name: 1})
    for number in (-1, 1 << 63, float("inf"), float("nan"), 1e300):
        with pytest.raises(UsageError, match=name):
            command_from(kind, {**needed, name: number})


def test_half_a_character_and_a_long_message_are_refused() -> None:
    """JSON can write half a surrogate pair: no file and no message between peers can hold it."""
    for message in ("\udcff", "x" * 1001):
        with pytest.raises(UsageError) as caught:
            command_from(PublishCommand, {"message": message})
        assert caught.value.error_code == "bad_parameter"


def test_bytes_arrive_whole_or_not_at_all() -> None:
    assert command_from(PublishCommand, {"held_b64": ["/w=="]}).held_b64 == (b"\xff",)
    with pytest.raises(UsageError, match="held_b64"):
        command_from(PublishCommand, {"held_b64": ["*"]})


def test_the_fileset_to_show_is_named_as_each_version_names_it() -> None:
    assert command_from(FilesetShowCommand, {"name": "catalog"}).name == "catalog"
    assert command_from(FilesetShowCommand, {"fileset": "catalog"}).fileset == "catalog"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ControlServer]:
    async def archived(asked: ArchiveListCommand, speaker: Speaker) -> ArchiveListDocument:
        return ArchiveListDocument(f"{asked.fileset} {asked.set_aside}", (), 7)

    served = ControlServer(
        tmp_path / "control.sock", CommandDoor({ArchiveListCommand: archived}, None), lambda _: Role.ADMIN
    )
    await served.start()
    yield served
    await served.stop()


async def test_the_socket_decodes_answers_and_refuses(server: ControlServer, tmp_path: Path) -> None:
    control = Control(tmp_path / "control.sock")
    asked = ArchiveListCommand("catalog", set_aside=True)
    assert await asyncio.to_thread(control.ask, asked, timeout_s=10.0) == ArchiveListDocument(
        "catalog True", (), 7
    )
    for name, params, code in (
        ("archive_list", {"set_asides": True}, "unknown_parameter"),
        ("archive_lists", {}, "unknown_command"),
    ):
        with pytest.raises(UsageError) as refused:
            await asyncio.to_thread(control.call, name, params, timeout_s=10.0)
        assert refused.value.error_code == code
        assert refused.value.hint is not None


async def test_the_socket_refuses_a_command_above_the_role_of_its_callers(tmp_path: Path) -> None:
    pruned: list[ArchivePruneCommand] = []

    async def prune(asked: ArchivePruneCommand, speaker: Speaker) -> ArchivePruneDocument:
        pruned.append(asked)
        return ArchivePruneDocument("catalog", True, False, (), 0, 0)

    control = Control(tmp_path / "control.sock")
    for role in Role:
        served = ControlServer(
            tmp_path / "control.sock",
            CommandDoor({ArchivePruneCommand: prune}, None),
            {os.geteuid(): role}.__getitem__,
        )
        await served.start()
        try:
            asking = asyncio.to_thread(control.ask, ArchivePruneCommand(), timeout_s=10.0)
            if role is not Role.VIEWER:
                await asking
                continue
            with pytest.raises(NotAllowedError) as refused:
                await asking
            assert refused.value.facts == {"asked": "operator", "has": "viewer"}
            assert (refused.value.error_code, pruned) == ("role_missing", [])
        finally:
            await served.stop()
    assert len(pruned) == len(Role) - 1


def test_root_and_the_user_of_the_node_may_give_every_command() -> None:
    for uid in (0, os.geteuid()):
        role = role_of(uid, Role.VIEWER)
        assert [name for name, kind in COMMANDS.items() if not role.includes(kind.role)] == []
    assert role_of(os.geteuid() + 1, Role.VIEWER) is Role.VIEWER


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b"\xff", b"[" * 100_000], ids=["list", "cut", "no text", "deep"]
)
async def test_parameters_that_are_no_object_are_refused(
    server: ControlServer, tmp_path: Path, body: bytes
) -> None:
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "control.sock"))
    writer.write(b"POST /v1/archive_list HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert json.loads(answer.splitlines()[-1])["error"]["code"] == "usage", answer
