"""``join``: turn a token into a node with certificates, a partner and, where asked, filesets."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import click
import msgspec

from instep.api.filesets import FilesetAcceptCommand
from instep.cli.cluster import addresses
from instep.cli.cluster.addresses import Chosen, new_node_options
from instep.cli.cluster.joined_database import check_database, use_database
from instep.cli.cluster.service import NodeService, enable, place_of_new_node
from instep.cli.filesets.recipes import recipe_options, recipe_settings, show_recipe
from instep.cli.filesets.roots import check_root, mark_root, root_of
from instep.cli.filesets.status_text import taking_part
from instep.cli.session import EXISTING_FILE, Session, command, service_option, timeout_option
from instep.errors import DamagedError, NotAllowedError, RefusedError, UsageError
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import fileset_name
from instep.net.client import join_cluster
from instep.net.messages.messages import Offer
from instep.net.trust.key_files import write_file
from instep.net.trust.pki import Issued, Pki
from instep.net.trust.tokens import Invitation, parse_token
from instep.node.config.editing import edits
from instep.node.config.loading import load
from instep.node.config.values import address
from instep.node.directory import NodeDirectory
from instep.node.peers.network.federating import is_federated, join_other_cluster
from instep.node.recipes.recipe import FOLLOWED
from instep.node.runtime.state import make_state
from instep.node.upkeep.after_reboot import Host

TOKENS_SEEN = "joined.json"
"""Below ``state/``: the ids of tokens used here, so that the same command again changes nothing."""


@command(
    "join",
    example="""instep join instep1-... --accept catalog=/srv/catalog --start
instep invite s1 | ssh s1 instep join - --start""",
)
@click.argument("token", required=False, metavar="TOKEN|-")
@click.option("--token-file", type=EXISTING_FILE, help="Read it from a file.")
@click.option("--accept", "accepts", multiple=True, metavar="NAME=PATH", help="Follow this fileset here.")
@recipe_options
@click.option("--observe", is_flag=True, help="Accept for comparing only, never write.")
@click.option(
    "--cluster-file", type=EXISTING_FILE, metavar="FILE",
    help="A file of mode 0600 with the address of the database that the inviting node uses.",
)  # fmt: skip
@new_node_options
@service_option
@timeout_option("60s")
def join(
    session: Session,
    token: str | None,
    token_file: Path | None,
    accepts: tuple[str, ...],
    recipe_name: str | None,
    params: tuple[str, ...],
    observe: bool,
    cluster_file: Path | None,
    listen: str | None,
    advertise: str | None,
    panel: str | None,
    allow: tuple[str, ...],
    is_started: bool,
    has_service: bool,
    timeout_ms: int,
) -> None:
    """Become a node of the cluster that made the token, and list the inviting node with zeros.

    Zeros mean: it may send here, this node sends it nothing. A node that exists already is only linked; one of
    another cluster keeps its own certificates, and each side trusts the other's keys.
    """
    wanted = _accepts(accepts)
    _check_recipe(recipe_name, wanted)
    invitation = parse_token(_token(token, token_file))
    node = place_of_new_node(session, has_service=has_service)
    _check_name(node, invitation)
    chosen = addresses.choose(node, invitation.name, listen, advertise, panel, allow)
    offers: list[dict[str, Any]] = []
    if cluster_file is not None:
        check_database(cluster_file.absolute(), invitation.inviter)
    changed = not (node.holds_node and invitation.token_id.hex() in _seen(node))
    if changed:
        offers = _begin(node, chosen, invitation, timeout_ms / 1000)
        session.reload()
    if cluster_file is not None and use_database(node, cluster_file.absolute()):
        changed = True
        session.reload()
    service = enable(node, Host()) if has_service else NodeService()
    started = False
    if is_started:
        from instep.cli.cluster.launch import start_daemon

        started = start_daemon(node)
    accepted = []
    for name, path in wanted:
        ready = recipe_settings(session, recipe_name, params, FOLLOWED, path)
        accepted.append(_accept(session, invitation, name, path, observe, ready, timeout_ms / 1000))
    document: dict[str, Any] = {
        "node": chosen.name, "directory": str(node.path), "inviter": invitation.inviter,
        "listen": str(chosen.listen), "advertise": str(chosen.advertise),
        "changed": changed or started or any(a["changed"] for a in accepted),
        "started": started, "accepted": accepted, "offers": offers, "service": service.document,
    }  # fmt: skip
    open_offers = {offer["name"]: offer["mode"] for offer in offers if offer["name"] not in dict(wanted)}
    document["next"] = [taking_part(name, mode, node.path) for name, mode in open_offers.items()]
    if not session.gave_json(document):
        print(
            f"node {chosen.name} in {node.path} is linked with {invitation.inviter}"
            + ("" if changed else " already")
        )
        print(f"  listens on {chosen.listen}, others dial {chosen.advertise}")
        if service.line is not None:
            print(service.line)
        for one in accepted:
            print(f"  follows {one['fileset']} in {one['path']}")
            show_recipe(recipe_name, one["fileset"], one.get("settings", {}))
        for step in document["next"]:
            print(f"  next: {step}")


def _accepts(raw: tuple[str, ...]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for one in raw:
        name, equals, path = one.partition("=")
        if not equals or not path:
            raise UsageError(
                f"--accept {one!r} is not NAME=PATH", hint="--accept catalog=/srv/catalog", code="bad_accept"
            )
        found.append((fileset_name(name), root_of(path)))
    return found


def _check_recipe(recipe_name: str | None, wanted: list[tuple[str, str]]) -> None:
    if recipe_name is not None and len(wanted) != 1:
        raise UsageError(
            f"--recipe is for one --accept, and there are {len(wanted)}",
            hint="instep fileset accept NAME PATH --recipe RECIPE, after the join",
            code="bad_flags",
        )


def _token(token: str | None, token_file: Path | None) -> str:
    if (token is None) == (token_file is None):
        raise UsageError(
            "join needs TOKEN, `-` for stdin, or --token-file",
            hint="make one on a member: instep invite NAME",
        )
    if token_file is not None:
        return token_file.read_text()
    return sys.stdin.read() if token == "-" else str(token)


def _check_name(node: NodeDirectory, invitation: Invitation) -> None:
    """A node that exists can only be linked under its own name."""
    if not node.holds_node:
        return
    name = load(node.path).name
    if name != invitation.name:
        raise RefusedError(
            f"the token is for {invitation.name}, but {node.path} holds {name}",
            hint=f"on {invitation.inviter}: instep invite {name}; or here: instep --dir OTHER join TOKEN",
            code="other_node", ours=name, token=invitation.name,
        )  # fmt: skip


def _seen(node: NodeDirectory) -> list[str]:
    """The ids of the tokens that were used here. ``DamagedError`` ``joined_damaged``: a token is good for once, so a
    used one that counted as new would be refused by the inviting node, for a reason that is not the true one."""
    path = node.state / TOKENS_SEEN
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[str])
    except FileNotFoundError:
        return []
    except DECODE_ERRORS as error:
        raise DamagedError(
            f"{path}, which says which tokens this node has used, cannot be read: {error}",
            hint=f"rm {quote(str(path))}, and then the same command with a token that was not used yet",
            code="joined_damaged",
            path=str(path),
        ) from error


def _begin(
    node: NodeDirectory, chosen: Chosen, invitation: Invitation, timeout_s: float
) -> list[dict[str, Any]]:
    """Join the cluster, or link this node of another one; record that the token was used here."""
    seen = _seen(node)
    is_local = any(address(one).is_loopback for one in invitation.addresses)
    known_at = "" if chosen.advertise.is_loopback and not is_local else str(chosen.advertise)
    if is_federated(node, invitation):
        offers = join_other_cluster(node, invitation, known_at, timeout_s)
    else:
        offers = _enrol(node, chosen, invitation, known_at, timeout_s)
    seen = [*seen, invitation.token_id.hex()]
    write_file(node.state / TOKENS_SEEN, json.dumps(seen).encode(), mode=0o600, of_node=True)
    return [
        {
            "name": offer.line.fileset, "writer": offer.writer, "mode": offer.mode,
            "class": offer.fileset_class, "entries": offer.entries, "bytes": offer.size_bytes,
        }
        for offer in offers
    ]  # fmt: skip


def _enrol(
    node: NodeDirectory, chosen: Chosen, invitation: Invitation, known_at: str, timeout_s: float
) -> tuple[Offer, ...]:
    """Certificates first, configuration last: a crash in between leaves no half node that could start."""
    existed = node.holds_node
    node.create()
    pki = Pki(node.pki)
    requests = pki.requests(invitation.name)
    try:
        reply, answered = asyncio.run(
            join_cluster(invitation, *requests, address=known_at, total_s=timeout_s)
        )
    except NotAllowedError as error:
        if error.hint is None or "invite" not in error.hint:
            error.hint = f"on {invitation.inviter}: instep invite {invitation.name}"
        raise
    pki.install(invitation.name, reply.ca, Issued(reply.tls_cert, reply.sign_cert), reply.crl)
    if not existed:
        make_state(node)
        edits.create(node, chosen.top)
    partner: dict[str, object] = {"address": answered}
    edits.set_partner(node, reply.inviter, partner)
    return reply.offers


def _accept(
    session: Session,
    invitation: Invitation,
    name: str,
    path: str,
    observe: bool,
    ready: dict[str, Any],
    timeout_s: float,
) -> dict[str, Any]:
    if session.node.socket.exists():
        mode = "observe" if observe else None
        asked = FilesetAcceptCommand(name, path, mode=mode, settings=ready)
        changed = bool(session.call(asked, timeout_s).changed)
    else:
        changed = _accept_cold(session, invitation, name, path, observe, ready)
    return {"fileset": name, "path": path, "changed": changed, **({"settings": ready} if ready else {})}


def _accept_cold(
    session: Session, invitation: Invitation, name: str, path: str, observe: bool, ready: dict[str, Any]
) -> bool:
    """Without a daemon nothing can be compared, so only an empty directory is taken."""
    root = Path(path)
    chosen = fileset_name(name)
    prepare = None
    if chosen not in session.settings().filesets:
        try:
            if not root.is_dir():
                root.mkdir(parents=True)
                if (owner := session.node.owner) is not None:
                    os.chown(root, *owner, follow_symlinks=False)
            is_empty = all(name == ".instep" for name in os.listdir(root))
        except OSError as error:
            raise RefusedError(
                f"cannot use {root}: {error.strerror}", hint="name another directory", code="root_missing"
            ) from error
        if not observe and not is_empty:
            raise RefusedError(
                f"{root} is not empty, and without the daemon it cannot be compared",
                hint=f"instep start; then: instep fileset accept {name} {quote(str(root))} --seed",
                code="not_empty",
                path=str(root),
            )
        check_root(session, chosen, root)
        prepare = partial(mark_root, session, chosen, root)
    given: dict[str, object] = {"observe": True} if observe else {}
    inviter = invitation.inviter
    return edits.accept_fileset(session.node, name, str(root), inviter, given, prepare, ready)
