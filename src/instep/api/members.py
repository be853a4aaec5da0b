"""The nodes of the cluster: invited, linked, listed, drained, revoked."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET, UnsetType, field

from instep.api.command import Command, Document, Message, Role, Seconds, command
from instep.errors import NotAllowedError, PeerError, RefusedError, ResourceError, UnavailableError


class InviteDocument(Document, frozen=True):
    """A token, until when it works once, and the address that it names. ``warning``: a node of this name is connected
    now."""

    token: str
    expires_at: str | None
    address: str
    warning: str | UnsetType = UNSET


@command("invite", Role.ADMIN, RefusedError)
class InviteCommand(Command[InviteDocument], frozen=True):
    """Make a one-time token for a new node, with the rights that this node will give it. A node that exists in another
    cluster can use it, too, to be linked by its key; with ``other_cluster`` only such a node can. ``from`` comes from
    earlier command lines; it has no effect.
    """

    name: str
    replicate: bool = True
    data: bool = True
    hub: bool = False
    ttl_s: Seconds | None = None
    other_cluster: bool = False
    source: str | None = field(default=None, name="from")


class ReadOnlyDocument(Document, frozen=True):
    """Whether the node is read-only; ``since``, ``by`` and ``reason`` while it is."""

    node: str
    changed: bool
    on: bool
    since: str | None
    by: str | None
    reason: str | None


@command("readonly", Role.OPERATOR, ResourceError)
class ReadOnlyCommand(Command[ReadOnlyDocument], frozen=True):
    """Publish, take and offer no edits on this node until that is ended; following and serving go on."""

    on: bool
    reason: Message = ""


# Partners -----------------------------------------------------------------------------------------------


class PartnerRowDocument(Document, frozen=True):
    """A partner with the rights that this node gives it, and whether it is connected."""

    name: str
    address: str | None
    replicate: bool
    data: bool
    hub: bool
    last_checked: str | None
    reachable: bool
    reason: str | None


class PartnersDocument(Document, frozen=True, kw_only=True):
    """The partners by name; ``daemon`` says that they come from the file of a stopped one."""

    daemon: str | UnsetType = UNSET
    partners: tuple[PartnerRowDocument, ...]


@command("partner_list", Role.VIEWER)
class PartnerListCommand(Command[PartnersDocument], frozen=True):
    """Every partner of this node."""


class PartnerAddDocument(Document, frozen=True):
    """The pinned partner."""

    name: str
    address: str
    pin: str
    changed: bool


@command("partner_add", Role.ADMIN, NotAllowedError, UnavailableError)
class PartnerAddCommand(Command[PartnerAddDocument], frozen=True):
    """Pin a node of another cluster: its certificate is fetched and must have this fingerprint."""

    name: str
    address: str
    pin: str
    replicate: bool | None = None
    data: bool | None = None
    hub: bool | None = None


class PartnerResendDocument(Document, frozen=True):
    """How many heads were announced."""

    name: str
    changed: bool
    heads: int


@command("partner_resend", Role.OPERATOR, UnavailableError)
class PartnerResendCommand(Command[PartnerResendDocument], frozen=True):
    """Announce all heads to a connected partner again."""

    name: str


class PartnerPollDocument(Document, frozen=True):
    """The lines that the partner was asked about, and how many of them it has a newer head of."""

    name: str
    lines: int
    newer: int


@command("partner_poll", Role.OPERATOR, UnavailableError, PeerError)
class PartnerPollCommand(Command[PartnerPollDocument], frozen=True):
    """Ask a partner for the newest heads now, as each poll interval does."""

    name: str


# Nodes --------------------------------------------------------------------------------------------------


class NodeRowDocument(Document, frozen=True):
    """A node; its facts, where the command asked for them and it sent them. ``address`` is where it can be dialled,
    ``seen_at`` the host that its connections come from; ``pin`` is the SHA-256 of its public key. ``drains`` are the
    reasons, of this node. A node with ``revoked_at`` has no certificate in force."""

    name: str
    self: bool
    address: str | None
    pin: str | None
    facts: Mapping[str, str]
    standing: str
    drained: bool | UnsetType = UNSET
    seen_at: str | UnsetType = UNSET
    drains: tuple[str, ...] | UnsetType = UNSET
    revoked_at: str | UnsetType = UNSET


class NodesDocument(Document, frozen=True, kw_only=True):
    """This node, then all that it knows; ``daemon`` says that they come from the file of a stopped one."""

    daemon: str | UnsetType = UNSET
    nodes: tuple[NodeRowDocument, ...]


@command("node_list", Role.VIEWER)
class NodeListCommand(Command[NodesDocument], frozen=True):
    """All nodes that this node knows, and the ones whose certificates are revoked. With ``facts`` also those of each
    connected partner that follows a fileset written here."""

    facts: bool = False


class FactsDocument(Document, frozen=True):
    """The facts of a node, by name."""

    node: str
    facts: Mapping[str, str]


@command("node_facts", Role.VIEWER, UnavailableError)
class NodeFactsCommand(Command[FactsDocument], frozen=True):
    """The facts of this node, or of a connected partner that follows a fileset written here."""

    node: str | None = None


class MapNodeDocument(Document, frozen=True):
    """A node of the topology."""

    name: str
    self: bool
    address: str | None
    writes: bool


class MapLinkDocument(Document, frozen=True):
    """A node that sends a fileset to another, and how that one stands."""

    sender: str = field(name="from")
    to: str
    fileset: str
    live: int | None
    standing: str
    connected: bool


class MapDocument(Document, frozen=True):
    """The topology as this node sees it now."""

    nodes: tuple[MapNodeDocument, ...]
    links: tuple[MapLinkDocument, ...]


@command("node_map", Role.VIEWER)
class NodeMapCommand(Command[MapDocument], frozen=True):
    """Which node sends which fileset to which."""


class DrainDocument(Document, frozen=True):
    """Whether a node is drained now, and until when."""

    node: str
    changed: bool
    drained: bool
    until: str | UnsetType | None = UNSET


@command("drain", Role.OPERATOR, NotAllowedError, UnavailableError, ResourceError)
class DrainCommand(Command[DrainDocument], frozen=True):
    """Say that a node should get no new work: this one, or a connected partner that lets us."""

    node: str | None = None
    for_s: Seconds | None = None
    reason: Message | None = None


@command("undrain", Role.OPERATOR, NotAllowedError, UnavailableError, ResourceError)
class UndrainCommand(Command[DrainDocument], frozen=True):
    """Take a drain back; that of a rollout goes on until it returns the node."""

    node: str | None = None


# Certificates -------------------------------------------------------------------------------------------


class RevokeDocument(Document, frozen=True):
    """The node whose certificates are revoked; ``daemon`` says that a stopped one will read it when it starts. A dry
    run says what would be revoked: ``certificates`` by serial number."""

    name: str
    changed: bool
    daemon: str | UnsetType = UNSET
    dry_run: bool | UnsetType = UNSET
    certificates: tuple[str, ...] | UnsetType = UNSET


@command("revoke", Role.ADMIN, RefusedError)
class RevokeCommand(Command[RevokeDocument], frozen=True):
    """Revoke the certificates of a node and cut its connections; with ``dry_run`` only say which those are."""

    name: str
    dry_run: bool = False


class NodeRemoveDocument(Document, frozen=True):
    """The node that is not of this cluster any more."""

    name: str
    changed: bool


@command("node_remove", Role.ADMIN, RefusedError)
class NodeRemoveCommand(Command[NodeRemoveDocument], frozen=True):
    """Take a node out of the cluster for good: its certificates are revoked, and every node forgets it."""

    name: str


class RenewDocument(Document, frozen=True):
    """The node whose certificates are new."""

    node: str
    changed: bool


@command("renew", Role.ADMIN, RefusedError, UnavailableError)
class RenewCommand(Command[RenewDocument], frozen=True):
    """Renew the certificates of this node now."""
