"""Certificates as commands show them, and the keys of the node that is meant."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from instep.cli.output import printable
from instep.cli.session import Session
from instep.errors import NotAllowedError, PeerError
from instep.net.trust.certs import CertificateFacts, Purpose, facts_of, name_of
from instep.net.trust.decoding import require_loadable
from instep.net.trust.pki import Pki


def day_of(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def open_pki(session: Session) -> Pki:
    session.node.require()
    return Pki(session.node.pki)


def facts_document(facts: CertificateFacts) -> dict[str, Any]:
    return {
        "subject": facts.subject, "names": list(facts.names), "pin": facts.pin,
        "fingerprint": facts.fingerprint, "serial": facts.serial,
        "not_before": day_of(facts.not_before_ms), "not_after": day_of(facts.not_after_ms),
    }  # fmt: skip


def why_not_trusted(certificate: x509.Certificate) -> str | None:
    """Why a certificate is none that a partner can be trusted by; None where it is one."""
    facts = facts_of(certificate)
    if facts.is_ca:
        return "it is of an authority, and a node of another cluster is trusted by its own key"
    try:
        name_of(certificate, Purpose.TLS)
        require_loadable([certificate])
    except NotAllowedError:
        return "it is of no node of instep"
    except PeerError as error:
        return error.reason
    return f"it expired on {day_of(facts.not_after_ms)}" if facts.not_after_ms < time.time() * 1000 else None


def imported_lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield f"{printable(row['subject']) or '-'}  until {row['not_after']}"
        if row["names"]:
            yield f"  names {', '.join(map(printable, row['names']))}"
        yield f"  fingerprint of the key {row['pin']}"
        yield f"  trusted as {row['trusted']}" if row["trusted"] else f"  not trusted: {row['why']}"
