"""Partners in ``instep.toml``: the rights that this node gives each of them, and where to dial it."""

from __future__ import annotations

from dataclasses import dataclass

from instep.model.address import Address
from instep.model.ids import NodeName
from instep.model.link import Link
from instep.node.config import values
from instep.node.config.keys import key
from instep.node.config.kinds import BadValue, boolean
from instep.node.config.table_reader import Table
from instep.node.config.values import fingerprint, node_name


@dataclass(frozen=True, slots=True, kw_only=True)
class PartnerSettings:
    """One partner, as the file says; ``link`` is what that means."""

    replicate: bool = key(False, boolean)
    """Whether this node's filesets go to that partner at all."""
    data: bool = key(False, boolean)
    """Whether filesets of class data go there too."""
    hub: bool = key(False, boolean)
    """Whether lines that this node did not write go there too."""
    introduces: bool = key(False, boolean)
    """Whether its word counts about the keys of nodes of other clusters whose filesets it passes on."""
    poll_ms: int | None = key(None, values.own_poll)
    """How often this node asks it for news, or `off` for never; new heads are announced over an open link all the same.
    Without it: `poll`."""
    address: Address | None = key(None, values.address)
    """Where to dial it; without it only the partner dials. `join` writes it."""
    pin: str | None = key(None, fingerprint)
    """SHA-256 of its public key: trusted without a common certificate authority."""

    @property
    def row(self) -> Link:
        """The flags as they are written."""
        return Link(replicate=self.replicate, data=self.data, hub=self.hub)

    @property
    def link(self) -> Link:
        """The rights. ``replicate = false`` voids the other two flags."""
        return self.row if self.replicate else Link()


def read_partners(top: Table, own_name: str | None) -> dict[NodeName, PartnerSettings]:
    found: dict[NodeName, PartnerSettings] = {}
    partners = top.below("partners")
    for name in partners.raw:
        try:
            partner = node_name(name)
        except BadValue as error:
            partners.wrong(name, str(error), name)
            continue
        if name == own_name:
            partners.wrong(name, "is this node itself; a partner has another name", name)
        table = partners.below(name)
        row = table.read(PartnerSettings)
        if not row["replicate"] and (row["data"] or row["hub"]):
            table.warn("", f"partner {name}: replicate = false voids data and hub")
        found[partner] = settings = PartnerSettings(**row)
        twins = [other for other, each in found.items() if each.address == settings.address is not None]
        if len(twins) > 1:
            both = " and ".join(twins)
            table.warn(
                "address", f"partners {both} have one address, {settings.address}: one of them is wrong"
            )
    return found
