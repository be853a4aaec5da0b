"""The shared part of every command: the node directory, the output form, the daemon, and how commands are declared.

``--dir`` and ``--json`` may stand before or after the command's name. A command is declared with
``@command(example=...)``: the example is shown by ``--help``, in the reference and in the man page.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
import msgspec

from instep.api.command import Command, Document, Result, as_json
from instep.cli.arguments import checked
from instep.cli.control import HALTED, Control, DaemonDown
from instep.cli.output import CLEAR, ProgressBar, say, write_json
from instep.errors import InstepError, RefusedError, UnavailableError, UsageError
from instep.model.ids import COUNT_MAX

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from instep.api.filesets import ReloadConfigDocument
    from instep.api.looking import EventsDocument
    from instep.node.config.settings import Settings
    from instep.node.directory import NodeDirectory

Function = TypeVar("Function", bound=Callable[..., Any])
Watched = TypeVar("Watched", bound=Document)


@dataclass
class Session:
    """One run of the command line."""

    directory_option: str | None = None
    is_json: bool = False
    arguments: tuple[str, ...] = ()
    """The command line as it was typed."""
    commands: frozenset[str] = frozenset()
    """The words that may follow ``instep`` in a text that names a command."""

    @property
    def node(self) -> NodeDirectory:
        from instep.node.directory import resolve

        return resolve(self.directory_option, os.environ)

    def typed_here(self, text: str) -> str:
        """A text whose commands work in the shell that this one was typed in: they name the node directory where this
        one had to. A program that asked for JSON knows it."""
        if self.directory_option is None or self.is_json or "instep " not in text:
            return text
        from instep.model.standing import typed_with
        from instep.node.directory import resolve

        path = self.node.path
        if resolve(None, os.environ).path == path:
            return text
        return typed_with(text, f"--dir {shlex.quote(str(path))}", self.commands)

    def _with_typed_steps(self, answer: Any) -> Any:
        if self.directory_option is None or self.is_json:
            return answer
        from instep.api.steps import with_steps

        return with_steps(answer, self.typed_here)

    @property
    def control(self) -> Control:
        return Control(self.node.socket)

    def settings(self) -> Settings:
        """The settings in the file now, which may differ from the running ones."""
        from instep.node.config.loading import load

        node = self.node
        node.require()
        return load(node.path)

    def call(self, command: Command[Result], timeout_s: float | None = None) -> Result:
        """Ask the daemon, with progress on a terminal. A deadline leaves the daemon 5 s to say why."""
        node = self.node
        if not node.socket.exists():
            node.require()
        if timeout_s is not None:
            command = msgspec.structs.replace(command, timeout_s=timeout_s)
        with ProgressBar(is_shown=not self.is_json) as bar:
            wait_s = None if timeout_s is None else timeout_s + 5
            found: Result = self._with_typed_steps(
                self.control.ask(command, timeout_s=wait_s, on_progress=bar)
            )
            return found

    def call_or(
        self, fallback: Callable[[], Result], command: Command[Result], silent_s: float | None = None
    ) -> Result:
        """Ask the daemon, or answer from the last state when none runs, or, with ``silent_s``, none that answers."""
        try:
            return self.call(command) if silent_s is None else self.control.ask(command, timeout_s=silent_s)
        except DaemonDown:
            self.node.require()
            return fallback()
        except UnavailableError as error:
            if silent_s is None or error.error_code not in ("timeout", HALTED):
                raise
            return fallback()

    def reload(self) -> ReloadConfigDocument | None:
        """Make a running daemon take the changed file; None when none runs. Raises its refusal."""
        from instep.api.filesets import ReloadConfigCommand

        try:
            return self.call(ReloadConfigCommand())
        except DaemonDown:
            return None

    def watch(self, command: Command[Watched], text: Callable[[Watched], Iterable[str]]) -> NoReturn:
        """Show every change of a watched result until the daemon ends; a quiet cluster is asked anew."""
        is_terminal, shown = sys.stdout.isatty(), ""
        while True:
            try:
                for document in self.control.watch(command):
                    document = self._with_typed_steps(document)
                    if self.gave_json(document) or (lines := "\n".join(text(document))) == shown:
                        continue
                    shown = lines
                    print(f"{CLEAR}{lines}" if is_terminal else f"{lines}\n", flush=True)
            except UnavailableError as error:
                if error.error_code != "timeout":
                    raise
            else:
                raise DaemonDown("the daemon has stopped", hint=f"instep --dir {self.node.path} start")

    def follow(
        self, command: Callable[[int], Command[EventsDocument]], show: Callable[[EventsDocument], None]
    ) -> NoReturn:
        """Show each item of a followed command; after a long silence the daemon is asked for what came later."""
        after = 0
        while True:
            try:
                for document in self.control.watch(command(after)):
                    after = document.events[-1]["number"]
                    show(document)
            except UnavailableError as error:
                if error.error_code != "timeout":
                    raise
            else:
                raise DaemonDown("the daemon has stopped", hint=f"instep --dir {self.node.path} start")

    def show_change(self, what: Mapping[str, str], changed: bool, done: str) -> None:
        """Make the daemon take a change of the file, and show it with the file's warnings."""
        reloaded = self.reload() if changed else None
        troubles = reloaded.troubles if reloaded is not None else ()
        for warning in (*self.settings().warnings, *troubles) if changed else ():
            say(f"instep: {warning}")
        name = next(iter(what.values()))
        document = {**what, "changed": changed, "daemon": daemon_word(changed, reloaded)}
        self.show(document, done if changed else f"{name}: nothing to change")

    def gave_json(self, document: Mapping[str, Any] | Document) -> bool:
        """Print the result as JSON where ``--json`` asks for it; false where a person reads and gets text instead."""
        if self.is_json:
            write_json(as_json(document) if isinstance(document, Document) else document)
        return self.is_json

    def show(self, document: Mapping[str, Any] | Document, text: str | Iterable[str]) -> None:
        """The result: the document with ``--json``, else the text, in one piece or line by line."""
        if not self.gave_json(document):
            for line in (text,) if isinstance(text, str) else text:
                print(line)


EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
"""The type of an option that names a file to read."""
pass_session = click.make_pass_decorator(Session, ensure=True)


class DurationType(click.ParamType[int]):
    """``200ms``, ``5s``, ``10m``, ``1h``, ``30d`` as milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from instep.node.config.kinds import BadValue
        from instep.node.config.values import duration_ms

        if isinstance(value, int):
            return value
        try:
            found = duration_ms(f"{value}s" if str(value).isdecimal() else value)
        except BadValue as error:
            self.fail(f"{value!r} {error}", param, ctx)
        if found > DURATION_MS_MAX:
            self.fail(f"{value!r} is longer than 30 years", param, ctx)
        return found


DURATION = DurationType()
DURATION_MS_MAX = 10**12
"""As long as a command takes a duration."""
GENERATION = click.IntRange(0, COUNT_MAX)
"""The type of an option that names a generation."""


def timeout_option(default: str | None) -> Callable[[Function], Function]:
    """``--timeout``; the command receives ``timeout_ms``, None for no limit."""
    return click.option(
        "--timeout", "timeout_ms", type=DURATION, default=default, show_default=default is not None,
        help="Give up after this time and say what is still missing.",
    )  # fmt: skip


max_behind_option = click.option(
    "--max-behind", "max_behind_ms", type=DURATION, metavar="DURATION",
    help="Also want to have heard of the writer of each line within this time, over hubs too.",
)  # fmt: skip


service_option = click.option(
    "--service/--no-service", "has_service", default=True, show_default=False,
    help="Install and enable the unit, where systemd runs and root asks; the default.",
)  # fmt: skip


def _keep_directory(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Session).directory_option = value


def _keep_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Session).is_json = True


def shared_options() -> list[click.Option]:
    return [
        click.Option(
            ["--dir"], metavar="DIR", expose_value=False, is_eager=True, callback=_keep_directory,
            help="The node directory; else INSTEP_DIR, /var/lib/instep, ~/.local/share/instep.",
        ),
        click.Option(
            ["--json"], is_flag=True, expose_value=False, is_eager=True, callback=_keep_json,
            help="Print one JSON document.",
        ),
    ]  # fmt: skip


class NamedType(click.types.StringParamType):
    """A text, checked by the kind that its name stands for. A shell completes it with names that this node knows."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(super().convert(value, param, ctx))
        return text if param is None else checked(text, param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """A completion never fails: without a node or a daemon there is nothing to offer."""
        from click.shell_completion import CompletionItem

        from instep.cli.known_names import known_names

        session = ctx.find_object(Session) or Session()
        try:
            found = tuple(known_names(session.settings(), session.control, ctx, param))
        except (InstepError, OSError):
            return []
        return [CompletionItem(one) for one in found if one.startswith(incomplete)]


class InstepCommand(click.Command):
    """A command that takes ``--dir`` and ``--json`` and shows an example. Its arguments that are plain words are
    completed with the names of filesets, nodes and generations."""

    example: str = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for parameter in self.params:
            if parameter.type is click.STRING:
                parameter.type = NamedType()
        self.params.extend(shared_options())

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            if error.error_code == "which_fileset":
                typed = ctx.ensure_object(Session).arguments
                error.hint = "; or: ".join(_named(ctx, typed, name) for name in error.facts["known"])  # type: ignore[attr-defined]
            raise

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.example:
            with formatter.section("Example"):
                formatter.write("".join(f"  {line}\n" for line in self.example.splitlines()))


def _named(ctx: click.Context, typed: Sequence[str], fileset: str) -> str:
    """The command line with the fileset in its place, behind the words of the command."""
    at = 0
    for word in ctx.command_path.split()[1:]:
        at = typed.index(word, at) + 1
    return shlex.join(("instep", *typed[:at], fileset, *typed[at:]))


class InstepGroup(click.Group):
    """A group of commands; without a command it shows its help."""

    command_class = InstepCommand

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(shared_options())


def command(
    name: str, *, example: str, parent: click.Group | None = None
) -> Callable[[Callable[..., Any]], InstepCommand]:
    """Declare a command, a function that takes the session first; its docstring is its help."""

    def declare(function: Callable[..., Any]) -> InstepCommand:
        short = (function.__doc__ or "").strip().split("\n")[0]
        made = click.command(name, cls=InstepCommand, short_help=short)(pass_session(function))
        made.example = example
        if parent is not None:
            parent.add_command(made)
        return made

    return declare


def group(name: str, help_text: str) -> InstepGroup:
    return InstepGroup(name, help=help_text, short_help=help_text, no_args_is_help=True)


def absolute(path: str) -> str:
    """The path as configuration keeps it: absolute, symlinks not followed."""
    return os.path.abspath(os.path.expanduser(path))


def daemon_word(changed: bool, reloaded: object) -> str:
    """How the daemon took a change of configuration."""
    if not changed:
        return "unchanged"
    return "stopped" if reloaded is None else "reloaded"


def later(what: str) -> None:
    """Refuse what a later version will have."""
    raise RefusedError(f"{what} is not in this version of instep", code="not_in_this_version")
