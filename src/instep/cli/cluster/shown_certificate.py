"""``pki use``: a certificate of another CA, shown to partners and browsers in place of the node's own."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import click

from instep.cli.cluster.certificate_facts import day_of, facts_document, open_pki
from instep.cli.output import printable, say
from instep.cli.passphrase import read_passphrase
from instep.cli.session import EXISTING_FILE, Session, command
from instep.errors import UsageError
from instep.net.trust.certs import Purpose, facts_of
from instep.net.trust.pki import Pki
from instep.net.trust.shown import Shown
from instep.net.trust.shown_file import missing_issuer, names_in, read_shown, require_usable


@command(
    "use",
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
