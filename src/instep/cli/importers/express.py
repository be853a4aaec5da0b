"""The mirror list of a LizardTech Express Server: ``Mirrors`` with ``Secondary`` elements in its base configuration."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import PurePath

from instep.cli.importers.plan import Plan, Server, Tree, plan_of, refuse, servers_of

TLS_WORDS = {
    "none": "was reached over plain HTTP: each machine on the way could read and change it",
    "noverify": "was reached over HTTPS, and any certificate was taken: it could have been another server",
    "strict": "was reached over HTTPS, verified by a public authority",
}
"""The three modes of the list, in the operator's words."""


def express_plan(text: str, path: str, writer: Server) -> Plan:
    """The plan for a primary's list. The list's own file stays out: only a primary has one."""
    hosts = _secondaries(text, path)
    servers = servers_of(hosts, (writer.name,))
    root = PurePath(path)
    tree = Tree(
        "catalogue",
        str(root.parent),
        list(servers.values()),
        options=("--recipe", "image-server", "--ignore", f"/{root.name}"),
        accept=("--recipe", "image-server", "--param", "reload=RELOAD", "--param", "url=URL"),
    )
    remarks = [
        f"{servers[host].name} ({host}:{port}) {TLS_WORDS[mode]}. From now on both sides prove their own keys by "
        "mutual TLS, pinned by the token of the invitation, and nothing weaker can be set"
        for host, (port, mode) in hosts.items()
    ]
    remarks += [
        f"where spatial indexes or overviews lie outside {root.parent}, add a fileset for each",
        "RELOAD is a program that makes the image server read its catalogues, URL what it must answer then",
        "the certificates of ca-bundle.crt are not needed: each server gets one of this cluster",
    ]
    stop = f"take the Mirrors element out of {path}, and start the image server again"
    return plan_of(writer, [tree], remarks, stop_here=stop)


def _secondaries(text: str, path: str) -> dict[str, tuple[str, str]]:
    """Each host with its port and mode."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise refuse("express", path, "it declares entities")
    try:
        document = ElementTree.fromstring(text)  # noqa: S314  no entities, and of limited size
    except ElementTree.ParseError as error:
        raise refuse("express", path, str(error)) from error
    lists = [each for each in document.iter() if _tag(each) == "Mirrors"]
    found: dict[str, tuple[str, str]] = {}
    for each in (one for mirrors in lists for one in mirrors if _tag(one) == "Secondary"):
        host, port = each.get("host", "").strip(), each.get("port", "80").strip()
        mode = (each.get("ssl") or each.get("sslstrictness") or "none").strip().lower()
        if not host or mode not in TLS_WORDS or not port.isdecimal():
            raise refuse("express", path, f"a Secondary has host {host!r}, port {port!r}, ssl {mode!r}")
        if host in found:
            raise refuse("express", path, f"the host {host} stands there twice")
        found[host] = (port, mode)
    if not found:
        raise refuse(
            "express", path, "it has no Mirrors element with a Secondary; only a primary has that list"
        )
    return found


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
