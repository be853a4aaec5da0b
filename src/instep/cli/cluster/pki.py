"""``pki``: certificates of this node and of the cluster, their renewal, revocation, backup and export."""

from __future__ import annotations

import hashlib
import shlex
import socket
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from cryptography import x509
from msgspec.structs import replace

from instep.api import members as api
from instep.cli.arguments import read_address
from instep.cli.certificate_facts import day_of, facts_document, imported_lines, open_pki, why_not_trusted
from instep.cli.control import DaemonDown
from instep.cli.exporting import export_for, export_key, target_of
from instep.cli.output import printable, say, table, write_json
from instep.cli.passphrase import passphrase_option, read_passphrase
from instep.cli.session import EXISTING_FILE, Session, command, group, timeout_option
from instep.errors import NotAllowedError, RefusedError, ResourceError, UsageError
from instep.fleet.server_layouts import FrontServer
from instep.model.counts import counted
from instep.model.ids import node_name
from instep.net.connections import presented
from instep.net.trust.certs import Purpose, facts_of, name_of, pin_of
from instep.net.trust.decoding import certificates_of_pem
from instep.net.trust.keystore import ExportFormat, backup, restore
from instep.net.trust.pki import Pki
from instep.net.trust.shown import Shown
from instep.net.trust.shown_file import missing_issuer, names_in, read_shown, require_usable

pki = group("pki", "Keys and certificates.")
trust = group("trust", "Certificates of others.")
pki.add_command(trust)


@command("list", parent=pki, example="instep pki list")
def pki_list(session: Session) -> None:
    """This node's certificates, the cluster's CA, and on the CA's node all certificates that it issued."""
    found = open_pki(session)
    own = [
        {"what": purpose.value, **facts_document(facts_of(found.certificate(purpose)))} for purpose in Purpose
    ]
    shows = Shown(found).current(int(time.time() * 1000))
    if shows is not None:
        own.insert(0, {"what": "shown", **facts_document(facts_of(shows.chain.leaf))})
    authorities = [{"what": "ca", **facts_document(facts_of(one))} for one in found.authorities()]
    issued = [
        {
            "name": one.name, "purpose": one.purpose, "serial": one.serial, "pin": one.pin,
            "not_after": day_of(one.not_after_ms),
            "revoked_at": None if one.revoked_at_ms is None else day_of(one.revoked_at_ms),
        }
        for one in (found.records() if found.is_ca else [])
    ]  # fmt: skip
    backed_up = found.backed_up_at_ms()
    document = {
        "node": found.name, "is_ca": found.is_ca, "certificates": [*own, *authorities], "issued": issued,
        "backed_up_at": None if backed_up is None else day_of(backed_up),
    }  # fmt: skip
    if not session.gave_json(document):
        table([(one["what"], one["subject"], one["not_after"], one["pin"]) for one in (*own, *authorities)],
              ("certificate", "subject", "until", "fingerprint of the key"))  # fmt: skip
        if issued:
            print()
            rows = [
                (one["name"], one["purpose"], one["not_after"], one["revoked_at"] or "-") for one in issued
            ]
            table(rows, ("issued to", "for", "until", "revoked"))
        if found.is_ca and backed_up is None:
            print("the CA key has no backup\n  next: instep pki backup --to FILE")


@command("renew", parent=pki, example="instep pki renew")
@timeout_option("60s")
def pki_renew(session: Session, timeout_ms: int) -> None:
    """New certificates for this node's keys now; the daemon does so by itself in time."""
    try:
        document = session.call(api.RenewCommand(), timeout_ms / 1000)
    except DaemonDown:
        found = open_pki(session)
        if not found.is_ca:
            raise
        found.renew_own(int(time.time() * 1000))
        document = api.RenewDocument(found.name, True)
    session.show(document, "the certificates are renewed")


@command("revoke", parent=pki, example="instep pki revoke s2")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only say which certificates would be revoked.")
@timeout_option("60s")
def pki_revoke(session: Session, name: str, dry_run: bool, timeout_ms: int) -> None:
    """Withdraw a node's certificates; every node learns it within a poll interval."""
    chosen = node_name(name)
    try:
        document = session.call(api.RevokeCommand(name, dry_run=dry_run), timeout_ms / 1000)
    except DaemonDown:
        if dry_run:
            from instep.node.commands.cluster.members import would_revoke

            document = replace(would_revoke(open_pki(session), chosen), daemon="stopped")
        else:
            changed = open_pki(session).revoke(chosen, int(time.time() * 1000))
            document = api.RevokeDocument(name, changed, "stopped")
    if not document.changed:
        done = f"{name} was revoked already"
    elif dry_run:
        done = f"{name} would be revoked: {counted(len(document.certificates or ()), 'certificate')}"
    else:
        done = f"{name} is revoked"
    session.show(document, done)


def _show_written(session: Session, what: str, files: list[Path], made: str | None) -> None:
    document: dict[str, Any] = {"files": [str(file) for file in files], "changed": True}
    if made is not None:
        document["passphrase"] = made
    if not session.gave_json(document):
        print(f"{what} is in {', '.join(document['files'])}")
        if made is not None:
            print(f"passphrase: {made}")
            say("write it down apart from the file; it is not shown again")


@command("backup", parent=pki, example="instep pki backup --to /media/safe/instep-ca.backup")
@click.option(
    "--to", "target", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="A file that does not exist yet.",
)  # fmt: skip
@passphrase_option
def pki_backup(session: Session, target: Path, passphrase_file: Path | None) -> None:
    """Write the cluster's CA and this node's keys, encrypted with a passphrase, into one file."""
    passphrase, made = read_passphrase(session, passphrase_file, is_new=True)
    backup(open_pki(session), target, passphrase, int(time.time() * 1000))
    _show_written(session, "the CA", [target], made)


@command("restore", parent=pki, example="instep pki restore --from /media/safe/instep-ca.backup")
@click.option(
    "--from",
    "source",
    required=True,
    type=EXISTING_FILE,
    metavar="FILE",
)
@passphrase_option
def pki_restore(session: Session, source: Path, passphrase_file: Path | None) -> None:
    """Put the CA and keys of a backup into a node directory that has none."""
    passphrase, _ = read_passphrase(session, passphrase_file, is_new=False)
    session.node.create()
    found = restore(source, session.node.pki, passphrase)
    Pki(session.node.pki).mark_backed_up(int(time.time() * 1000))
    session.show({"node": found.name, "changed": True}, f"the keys of {found.name} are restored")


@command(
    "export",
    parent=pki,
    example="""instep pki export s1 --format pkcs12 --to /etc/tomcat/s1.p12
instep pki export s1 --format pem --to /etc/ssl/s1 --for nginx""",
)
@click.argument("name")
@click.option("--format", "form", type=click.Choice([each.value for each in ExportFormat]), required=True)
@click.option(
    "--to", "target", type=click.Path(path_type=Path), metavar="PATH",
    help="The file; for pem the directory. Default: NAME.p12, NAME.jks or NAME-pem here.",
)  # fmt: skip
@click.option(
    "--for", "server", type=click.Choice([each.value for each in FrontServer]),
    help="Print the lines with which this server shows the certificate, and where its configuration is here.",
)  # fmt: skip
@passphrase_option
def pki_export(
    session: Session, name: str, form: str, target: Path | None, server: str | None, passphrase_file: Path | None
) -> None:  # fmt: skip
    """Give this node's certificate and key to another program, encrypted with a passphrase.

    With --for a server has to read the key without a person: the passphrase is in a file of mode 0600 beside the
    key. HAProxy reads no encrypted key, and gets an open one of mode 0600.
    """
    found, chosen = open_pki(session), ExportFormat(form)
    if name != found.name:
        raise RefusedError(
            f"the key of {name} is only on {name}",
            hint=f"on {name}: instep pki export {name} --format {form}",
            code="no_key_here",
        )
    place = target_of(session, name, chosen, target)
    if server is not None:
        export_for(session, found, chosen, place, passphrase_file, FrontServer(server))
        return
    files, made = export_key(session, found, chosen, place, passphrase_file)
    _show_written(session, name, files, made)


@command(
    "use",
    parent=pki,
    example="""instep pki use /etc/ssl/s1.example.org.pem
instep pki use /etc/letsencrypt/live/s1/fullchain.pem --key /etc/letsencrypt/live/s1/privkey.pem
instep pki use --cluster""",
)
@click.argument("file", type=EXISTING_FILE, required=False)
@click.option(
    "--key", "key_file", type=EXISTING_FILE, metavar="FILE", help="The key, when it is in another file."
)
@click.option(
    "--host", "hosts", multiple=True, metavar="HOST", help="A further name that leads to this node."
)
@click.option("--cluster", is_flag=True, help="Show the certificate of the cluster again.")
@click.option("--dry-run", is_flag=True, help="Only check the file.")
@click.option(
    "--passphrase-file", type=EXISTING_FILE, metavar="FILE", help="A file of mode 0600 with the key's passphrase."
)  # fmt: skip
def pki_use(
    session: Session, file: Path | None, key_file: Path | None, hosts: tuple[str, ...], cluster: bool,
    dry_run: bool, passphrase_file: Path | None,
) -> None:  # fmt: skip
    """Show partners and browsers a certificate of your own or a commercial CA.

    FILE is PEM: the certificate, its issuers, and its key, which may also be this node's own. A bad file changes
    nothing. Partners need nothing: this node vouches for the certificate with its own one, which the cluster
    goes on renewing. A new certificate is used by the same command, while the node runs.
    """
    found, now_ms = open_pki(session), int(time.time() * 1000)
    own = found.certificate(Purpose.TLS)
    if (file is None) != cluster:
        raise UsageError("name a file, or say --cluster", hint="instep pki use FILE", code="usage")
    shown = Shown(found)
    document: dict[str, Any] = {"node": found.name, "dry_run": dry_run}
    if file is None:
        changed = shown.path.exists() if dry_run else shown.drop()
        document |= {"changed": changed, "shown": None, "missing_issuer": None}
        lines = [f"{found.name} shows its certificate of the cluster"]
    else:
        passphrase = (
            None if passphrase_file is None else read_passphrase(session, passphrase_file, is_new=False)[0]
        )
        chain = read_shown(file, key_file, passphrase, own)
        require_usable(chain, [*hosts, *_own_hosts(session, found)], now_ms)
        shown.require_loadable(chain)
        facts, missing = facts_of(chain.leaf), missing_issuer(chain)
        changed = False if dry_run else shown.use(chain, now_ms)
        document |= {"changed": changed, "shown": facts_document(facts), "missing_issuer": missing}
        does = "would show" if dry_run else "shows"
        lines = [
            f"{found.name} {does} the certificate of {names_in(chain.leaf)} until {day_of(facts.not_after_ms)}"
        ]
        source = key_file or file
        if chain.key_pem and source.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH) and not session.is_json:
            name = shlex.quote(printable(str(source)))
            say(f"other users can read the key in {name}; next: chmod 600 {name}")
        if missing is not None and not session.is_json:
            say(f"browsers trust it where they know its issuer {printable(missing)}; partners need not")
    if changed and not dry_run:
        session.reload()
    session.show(document, lines)


def _own_hosts(session: Session, found: Pki) -> list[str]:
    """The names under which programs reach this node."""
    settings = session.settings()
    panel = settings.panel.host if settings.panel is not None else ""
    return [found.name, settings.advertise.host, panel, socket.gethostname()]


@command(
    "fetch",
    parent=trust,
    example="""instep pki trust fetch 10.30.0.1:7443
instep pki trust fetch 10.30.0.1:7443 --pin 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08""",
)
@click.argument("address", metavar="HOST:PORT")
@click.option("--pin", metavar="FINGERPRINT", help="Trust the node when its key has this fingerprint.")
@timeout_option("10s")
def trust_fetch(session: Session, address: str, pin: str | None, timeout_ms: int) -> None:
    """Show the certificates that a server presents, and trust the node when its fingerprint is confirmed.

    On a terminal it asks; --pin answers beforehand. Without either nothing is believed. Ask the other
    administrator for the fingerprint by another way, such as the telephone.
    """
    at = read_address(address)
    chain = presented.trust_fetch(at.host, at.port, timeout_s=timeout_ms / 1000)
    rows = [facts_document(facts) for facts in chain.facts()]
    document: dict[str, Any] = {
        "address": str(at),
        "pin": chain.pin,
        "certificates": rows,
        "pem": chain.pem().decode(),
    }
    if not session.is_json:
        for row in rows:
            say(f"{printable(row['subject'])}  until {row['not_after']}")
            say(f"  names {', '.join(map(printable, row['names']))}")
            say(f"  fingerprint of the key {row['pin']}")
        if chain.own != chain.certificates:
            say(f"the node behind them has the fingerprint {chain.pin}: compare this one")
    if pin is not None and pin != chain.pin:
        raise NotAllowedError(
            f"the key at {at} has another fingerprint",
            hint="ask the administrator of that node for it by another way",
            code="wrong_pin",
            shown=chain.pin,
            typed=pin,
        )
    is_asked = pin is None and not session.is_json and sys.stdin.isatty() and sys.stdout.isatty()
    if pin is not None or (is_asked and click.confirm("Trust this node? Compare the fingerprint first")):
        document["trusted"] = _trust(session, chain.own[:1], chain.own[1:])
    if session.is_json:
        write_json(document)
    elif "trusted" in document:
        say(f"trusted: {', '.join(document['trusted'])}")
    elif not is_asked:
        sys.stdout.write(chain.pem().decode())


def _trust(
    session: Session, certificates: Sequence[x509.Certificate], others: Sequence[x509.Certificate]
) -> list[str]:
    """Trust each certificate for the node that it names; its issuer may be among ``others``."""
    found, names = open_pki(session), []
    for certificate in certificates:
        name = name_of(certificate, Purpose.TLS)
        found.pins.pin(name, (certificate, *others))
        names.append(str(name))
    session.reload()
    return names


@command("list", parent=trust, example="instep pki trust list")
def trust_list(session: Session) -> None:
    """The nodes of other clusters whose keys are trusted here: partners, and nodes that a partner introduced."""
    pins = open_pki(session).pins
    rows: list[dict[str, Any]] = []
    for name, certificate in pins.certificates().items():
        key = pins.sign_key(name)
        rows.append(_trusted(name, "partner", None, None, key) | {"pin": pin_of(certificate)})
    for name, found in pins.introduced().items():
        rows.append(_trusted(name, "introduced", found.by, day_of(found.at_ms), found.raw))
    lines = [
        f"{row['name']}  {'introduced by ' + row['by'] if row['by'] else 'partner'}  "
        f"signs with {row['sign_key'] or 'a key that it has not sent yet'}"
        for row in rows
    ]
    session.show({"trusted": rows}, lines or ("no node of another cluster",))


def _trusted(name: str, how: str, by: str | None, at: str | None, key: bytes | None) -> dict[str, Any]:
    shown = None if key is None else hashlib.sha256(key).hexdigest()
    return {"name": name, "how": how, "by": by, "at": at, "pin": None, "sign_key": shown}


@command("forget", parent=trust, example="instep pki trust forget gamma")
@click.argument("name")
def trust_forget(session: Session, name: str) -> None:
    """Forget the key of a node that a partner introduced: the next introduction counts as the first.

    For a key that was changed on purpose. A partner of another cluster is forgotten by instep partner remove.
    """
    chosen = node_name(name)
    changed = open_pki(session).pins.forget_introduced(chosen)
    if changed:
        session.reload()
    session.show({"name": name, "changed": changed}, f"{name} is known by no introduction")


@command("import", parent=trust, example="instep pki trust import k1.pem")
@click.argument("file", type=EXISTING_FILE)
def trust_import(session: Session, file: Path) -> None:
    """Show the certificates in a PEM file, and trust those of nodes, each for the node that it names.

    A bundle of another program, such as ca-bundle.crt, is shown with the subject and the expiry of each.
    """
    try:
        certificates = certificates_of_pem(file.read_bytes())
    except OSError as error:
        raise ResourceError(f"cannot read {file}: {error.strerror}", code="unreadable") from error
    reasons = [why_not_trusted(one) for one in certificates]
    nodes = [one for one, why in zip(certificates, reasons, strict=True) if why is None]
    names = _trust(session, nodes, certificates) if nodes else []
    trusted = iter(names)
    rows = [
        {
            **facts_document(facts_of(one)),
            "is_ca": facts_of(one).is_ca,
            "trusted": next(trusted) if why is None else None,
            "why": why,
        }
        for one, why in zip(certificates, reasons, strict=True)
    ]
    document = {"trusted": names, "changed": bool(names), "certificates": rows}
    session.show(document, (*imported_lines(rows), f"trusted: {', '.join(names) or 'no node'}"))
