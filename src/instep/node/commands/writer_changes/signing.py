"""The record of a line's next epoch: signed, and awaited until the line's machine has accepted and saved it."""

from __future__ import annotations

from collections.abc import Callable

from instep.model.generation import UNSIGNED, EpochBody, Signature, SignedEpoch
from instep.model.ids import Digest
from instep.node.commands.patience import until
from instep.node.lines.line_service import LineService
from instep.node.node import Node


def signed_epoch(body: EpochBody, sign: Callable[[Digest], Signature]) -> SignedEpoch:
    raw = body.encoded()
    return SignedEpoch(raw, sign(SignedEpoch(raw, UNSIGNED).id))


async def until_saved(node: Node, service: LineService, signed: SignedEpoch, deadline: float) -> None:
    """``ContentionError`` when the record is not the line's current one by then."""

    def is_saved() -> bool:
        current = service.facts.epochs.current
        return current is not None and current.id == signed.id

    epoch = signed.body().epoch
    await until(node, is_saved, deadline, f"the record of epoch {epoch} was not accepted here")
