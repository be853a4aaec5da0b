"""``import``: an old set-up as a plan of commands, which is printed and never carried out."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import click

from instep.cli.cluster.addresses import default_route_address, host_name
from instep.cli.importers.csync2 import csync2_plan
from instep.cli.importers.express import express_plan
from instep.cli.importers.incron import incron_plan, read_exports
from instep.cli.importers.plan import FILE_BYTES_MAX, Plan, Server, refuse, servers_of
from instep.cli.output import printable
from instep.cli.session import EXISTING_FILE, Function, Session, command, group
from instep.model.counts import sized

import_ = group("import", "An old set-up as a plan of commands; nothing is carried out.")


def _options(function: Function) -> Function:
    dry = click.option(
        "--dry-run", is_flag=True, expose_value=False, help="Always so: the plan is only printed."
    )
    writer = click.option("--writer", metavar="HOST", help="The server that writes; this one when not given.")
    return click.argument("file", type=EXISTING_FILE)(writer(dry(function)))


@command("express", parent=import_, example="instep import express /opt/ImageServer/etc/iserv-cfg.xml")
@_options
def import_express(session: Session, file: Path, writer: str | None) -> None:
    """Read the Mirrors element of an Express Server's base configuration (iserv-cfg.xml)."""
    _show(session, file, "express", express_plan(_text(file, "express"), _at(file), _writer(writer)))


@command("csync2", parent=import_, example="instep import csync2 /etc/csync2.cfg --writer web1")
@_options
def import_csync2(session: Session, file: Path, writer: str | None) -> None:
    """Read the groups of csync2. The writer is the first host that is no slave, when not given."""
    _show(session, file, "csync2", csync2_plan(_text(file, "csync2"), _at(file), writer))


@command(
    "incron", parent=import_, example="instep import incron /etc/incron.d/geoserver --exports /etc/exports"
)
@_options
@click.option("--exports", type=EXISTING_FILE, help="The NFS exports: the partners and their trees.")
def import_incron(session: Session, file: Path, writer: str | None, exports: Path | None) -> None:
    """Read a table of incron, and the exports by which the others had the tree."""
    known = read_exports(_text(exports, "incron"), _at(exports)) if exports is not None else []
    _show(session, file, "incron", incron_plan(_text(file, "incron"), _at(file), _writer(writer), known))


def _show(session: Session, file: Path, kind: str, plan: Plan) -> None:
    for step in plan.steps:
        if not step.command.isprintable():
            raise refuse(kind, str(file), f"a name in it cannot be typed: {step.command!r}")
    document = {
        "kind": kind, "file": str(file), "steps": [step.document for step in plan.steps],
        "remarks": list(plan.remarks),
    }  # fmt: skip
    if not session.gave_json(document):
        for line in plan.lines():
            print("\n".join(printable(part) for part in line.split("\n")))


def _writer(given: str | None) -> Server:
    if given is None:
        (here,) = servers_of([host_name()]).values()
        return Server(here.name, default_route_address() or here.host)
    (found,) = servers_of([given]).values()
    return Server("main", given) if found.ip else found


def _at(file: Path) -> str:
    return os.path.abspath(file)


def _text(file: Path, kind: str) -> str:
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise refuse(kind, str(file), "it is not a plain file")
        raw = opened.read(FILE_BYTES_MAX + 1)
    if len(raw) > FILE_BYTES_MAX:
        raise refuse(kind, str(file), f"it is larger than {sized(FILE_BYTES_MAX)}")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise refuse(kind, str(file), "it is not UTF-8") from error
