"""The door: finds the command, turns every error into a message and an exit code.

Command modules are imported when their command is called, so that ``instep status`` starts quickly.
"""

from __future__ import annotations

import importlib
import keyword
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from instep.cli.arguments import check_length
from instep.cli.output import quoting_output, report_error
from instep.cli.session import InstepGroup, Session
from instep.errors import InstepError, NotAllowedError, UsageError

COMMANDS: dict[str, str] = {
    "init": "cluster.lifecycle", "join": "cluster.joining", "start": "cluster.lifecycle",
    "stop": "cluster.lifecycle", "serve": "cluster.lifecycle", "readonly": "cluster.lifecycle",
    "invite": "cluster.members",
    "node": "cluster.members", "partner": "cluster.partners", "allow": "cluster.partners",
    "check": "cluster.members", "pki": "cluster.pki", "config": "cluster.configuration",
    "fileset": "filesets.filesets", "recipe": "filesets.recipes", "publish": "filesets.publishing",
    "wait": "filesets.publishing", "rollback": "filesets.restoring", "restore": "filesets.restoring",
    "retry": "filesets.publishing", "pause": "filesets.publishing", "resume": "filesets.publishing",
    "rollout": "filesets.rollouts", "reload": "filesets.rollouts",
    "handover": "filesets.writer_change", "promote": "filesets.writer_change",
    "status": "filesets.looking", "log": "filesets.looking", "diff": "filesets.looking",
    "events": "filesets.looking", "verify": "filesets.looking", "explain": "filesets.looking",
    "lock": "changes.locks", "edit": "changes.editing", "offer": "changes.offers",
    "collisions": "changes.collisions",
    "test": "filesets.self_test", "archive": "filesets.archive", "balancer": "cluster.balancers",
    "lease": "shared_parts.leases",
    "panel": "cluster.access", "user": "cluster.access", "token": "cluster.access", "audit": "cluster.access",
    "job": "shared_parts.jobs", "request": "shared_parts.jobs", "maintenance": "shared_parts.jobs",
    "seat": "shared_parts.seats", "standby": "shared_parts.standby", "layout": "shared_parts.layouts",
    "backup": "shared_parts.backups",
    "sync": "filesets.sync",
    "import": "importers.importing", "debug": "filesets.debugging", "demo": "cluster.demo", "completion": "completion",
}  # fmt: skip
"""Command or group to the module below ``instep.cli`` that holds it, in the order of the help page."""

INTERRUPTED = 130


class LazyGroup(InstepGroup):
    """Imports a command's module when the caller asks for it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        attribute = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        found = getattr(importlib.import_module(f"instep.cli.{module}"), attribute)
        assert isinstance(found, click.Command)
        return found


def _version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from instep import __version__

        click.echo(f"instep {__version__}")
        context.exit()


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version."
)
def cli() -> None:
    """Keeps a cluster of servers in step: published on one, verified and live on the others.

    First steps: instep demo. A cluster: instep init, fileset add, invite; then join on each other server.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    session = Session(arguments=tuple(arguments), commands=frozenset(COMMANDS))
    with quoting_output(session.typed_here):
        return _run(session, arguments)


def _run(session: Session, arguments: Sequence[str]) -> int:
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    is_json = "--json" in own
    try:
        check_length(arguments)
        code: Any = cli.main(list(arguments), prog_name="instep", standalone_mode=False, obj=session)
    except InstepError as error:
        error.hint = session.typed_here(error.hint) if error.hint else None
        report_error(error, is_json=is_json)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return UsageError.exit_code
    except click.ClickException as error:
        report_error(_usage(error), is_json=is_json)
        return UsageError.exit_code
    except PermissionError as error:
        report_error(_not_allowed(session, error), is_json=is_json)
        return NotAllowedError.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last door: whatever comes here is exit code 1
        if os.environ.get("INSTEP_DEBUG"):
            import traceback

            traceback.print_exc()
        hint = "run it again with INSTEP_DEBUG=1 and report what it prints"
        report_error(InstepError(f"{type(error).__name__}: {error}", hint=hint), is_json=is_json)
        return InstepError.exit_code
    return code if isinstance(code, int) else 0


def _not_allowed(session: Session, error: PermissionError) -> InstepError:
    """A file of the node, or another one that the command reads or writes."""
    from instep.node.directory import not_allowed

    file, node = str(error.filename or ""), session.node.path
    if not file or Path(file).is_relative_to(node):
        return not_allowed(node)
    reason = f"this user may not use {file}: {error.strerror}"
    return NotAllowedError(reason, hint="repeat the command with sudo", code="file_not_allowed", path=file)


def _usage(error: click.ClickException) -> UsageError:
    hint = None
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"{error.ctx.command_path} --help"
    return UsageError(error.format_message(), hint=hint)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))
