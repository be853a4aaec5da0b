#!/usr/bin/env python3
"""Mails the notice of a hook: mail.py HOST:PORT FROM TO. What happened comes as JSON on standard input.

One file, the standard library alone. A server that takes no mail from this machine without a password is none for it:
use the mail program of the machine then.
"""

from __future__ import annotations

import json
import os
import smtplib
import sys
from email.message import EmailMessage

SHOWN = 50
TIMEOUT_S = 20


def main(server: str, sender: str, receiver: str) -> None:
    told = json.load(sys.stdin)
    profile = os.environ.get("INSTEP_SYNC", "")
    mail = EmailMessage()
    mail["From"], mail["To"] = sender, receiver
    mail["Subject"] = f"instep: {told['hook']} {profile or told['fileset']}"
    paths = [each["path"] for each in told["changed"]]
    lines = [told.get("reason") or told["hook"], "", *paths[:SHOWN]]
    if len(paths) > SHOWN:
        lines.append(f"and {len(paths) - SHOWN} more")
    if profile:
        lines += ["", f"instep sync show {profile}", f"instep sync collisions {profile}"]
    mail.set_content("\n".join(lines))
    host, _, port = server.partition(":")
    with smtplib.SMTP(host, int(port or 25), timeout=TIMEOUT_S) as smtp:
        smtp.send_message(mail)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: mail.py HOST:PORT FROM TO")
    main(*sys.argv[1:])
