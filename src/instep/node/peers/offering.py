"""The offer of a line to a partner that has not accepted it yet."""

from __future__ import annotations

import msgspec

from instep.net.messages import messages as m
from instep.node.lines.line_service import LineService


def offer_of(service: LineService) -> m.Offer | None:
    """The offer of a line to a partner that may have it."""
    message = service.head_message(None, with_bundle=False)
    definition = service.known_definition()
    if definition is None:
        return None
    body = message.generation.body() if message is not None else None
    return m.Offer(
        line=service.line,
        writer=service.writer,
        mode=definition.mode.value,
        fileset_class=definition.fileset_class.value,
        entries=body.entries if body is not None else 0,
        size_bytes=body.size_bytes if body is not None else 0,
        head=message.generation.ref() if message is not None else None,
        definition=definition.encoded(),
    )


def is_other_offer(old: m.Offer, new: m.Offer) -> bool:
    """Whether two offers of a line differ in more than the head and its numbers, which travel with each head."""
    numbers = {"head": old.head, "entries": old.entries, "size_bytes": old.size_bytes}
    return bool(msgspec.structs.replace(new, **numbers) != old)
