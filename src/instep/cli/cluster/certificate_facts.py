"""Certificates as commands show them, and the keys of the node that is meant."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from instep.cli.session import Session
from instep.net.trust.certs import CertificateFacts
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
