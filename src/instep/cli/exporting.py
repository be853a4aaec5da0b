"""``pki export``: the node's certificate and key as files of another program, and the lines of a front server."""

from __future__ import annotations

import contextlib
import pwd
from pathlib import Path
from typing import Any

from instep.cli.output import printable, say
from instep.cli.passphrase import made_passphrase, read_passphrase
from instep.cli.session import Session
from instep.errors import RefusedError, UsageError
from instep.fleet.scratch import scratch_folder, sweep_scratch
from instep.fleet.server_layouts import ExportedFiles, FrontServer, layout_here, lines_for
from instep.net.trust.key_files import write_file
from instep.net.trust.keystore import ExportFormat, export, export_open
from instep.net.trust.pki import Pki

_ENDINGS = {ExportFormat.PEM: "-pem", ExportFormat.PKCS12: ".p12", ExportFormat.JKS: ".jks"}
FORMATS = {
    FrontServer.APACHE: (ExportFormat.PEM,),
    FrontServer.NGINX: (ExportFormat.PEM,),
    FrontServer.HAPROXY: (ExportFormat.PEM,),
    FrontServer.TOMCAT: (ExportFormat.PKCS12, ExportFormat.JKS),
}
"""What each server reads with the lines that are printed for it."""


def target_of(session: Session, name: str, form: ExportFormat, target: Path | None) -> Path:
    """Where to write. ``RefusedError`` ``key_in_a_fileset`` below a served tree."""
    target = target or Path(f"{name}{_ENDINGS[form]}")
    around = session.settings().fileset_around(target)
    if around is not None:
        raise RefusedError(
            f"{target} lies in the fileset {around.name}, which would carry the key to other nodes",
            hint=f"--to PATH, outside {around.path}",
            code="key_in_a_fileset",
            fileset=around.name,
        )
    return target


def export_key(
    session: Session, found: Pki, form: ExportFormat, target: Path, passphrase_file: Path | None
) -> tuple[list[Path], str | None]:
    """Write the files; the passphrase comes back when it was made here and has to be shown once."""
    passphrase, made = read_passphrase(session, passphrase_file, is_new=True)
    return _export(found, form, target, passphrase), made


def _export(found: Pki, form: ExportFormat, target: Path, passphrase: bytes) -> list[Path]:
    with contextlib.suppress(OSError):
        sweep_scratch()
    return export(found, form, target, passphrase, scratch_folder)


def export_for(
    session: Session, found: Pki, form: ExportFormat, target: Path, passphrase_file: Path | None, server: FrontServer
) -> None:  # fmt: skip
    """Write the files so that this server can read them without a person, and print its lines. What the server's file
    cannot name is refused before anything is written."""
    if form not in FORMATS[server]:
        right = " or ".join(each.value for each in FORMATS[server])
        raise UsageError(
            f"{server.value} is given {right} here, and the format is {form.value}",
            hint=f"type it with --format {FORMATS[server][0].value}",
            code="wrong_format",
        )
    target = target.absolute()
    if server is FrontServer.HAPROXY:
        files, written = _for_haproxy(found, target, passphrase_file)
    else:
        files, written = _for_others(session, found, form, target, passphrase_file)
    layout = layout_here(server)
    lines = lines_for(server, str(found.name), form.value, files)
    then = [] if layout is None else [step.format(name=found.name) for step in layout.then]
    user = None if layout is None else next(filter(_is_user, layout.users), None)
    if user is not None:
        then.insert(0, f"chown {user} {' '.join(str(path) for path in written)}")
    place = None if layout is None else layout.file.format(name=found.name)
    shown: dict[str, Any] = {
        "name": server.value,
        "layout": None if layout is None else layout.style,
        "file": place,
        "lines": lines,
        "then": then,
    }
    document = {"files": [str(path) for path in written], "changed": True, "server": shown}
    if session.gave_json(document):
        return
    for line in lines:
        print(line)
    say(f"{found.name} is in {', '.join(printable(str(path)) for path in written)}")
    if files.passphrase is None:
        say(f"the key in {files.key} is not encrypted, for HAProxy asks a person for a passphrase; mode 0600")
    if server is FrontServer.TOMCAT:
        say("a Tomcat that finds the passphrase wrong is too old to read it from a file: update it")
    if layout is None:
        say(f"{server.value} was not found here: put the lines above into its configuration")
    else:
        say(f"put the lines above into {place}: {server.value} is installed here as by {layout.style}")
    for step in then:
        say(f"then: {step}")


def _for_haproxy(found: Pki, target: Path, passphrase_file: Path | None) -> tuple[ExportedFiles, list[Path]]:
    if passphrase_file is not None:
        raise UsageError(
            "HAProxy reads no passphrase from a file, and asks a person at each start",
            hint="leave --passphrase-file out: the key is written open, mode 0600",
            code="no_passphrase_there",
        )
    file = target / f"{found.name}.pem"
    files = ExportedFiles(file, file)
    files.require_plain()
    return files, export_open(found, target)


def _for_others(
    session: Session, found: Pki, form: ExportFormat, target: Path, passphrase_file: Path | None
) -> tuple[ExportedFiles, list[Path]]:
    if form is ExportFormat.PEM:
        certificate, key = target / f"{found.name}.crt", target / f"{found.name}.key"
        beside = target / f"{found.name}.pass"
    else:
        certificate = key = target
        beside = target.with_name(f"{target.name}.pass")
    read = beside if passphrase_file is None else passphrase_file.absolute()
    files = ExportedFiles(certificate, key, read)
    files.require_plain()
    if passphrase_file is not None:
        given, _ = read_passphrase(session, passphrase_file, is_new=True)
        return files, _export(found, form, target, given)
    made = made_passphrase().encode()
    written = _export(found, form, target, made)
    write_file(beside, made + b"\n", mode=0o600)
    return files, [*written, beside]


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
