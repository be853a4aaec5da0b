"""Files for the balancers in front of the nodes."""

from __future__ import annotations

from collections.abc import Mapping

from instep.api.command import Command, Document, Role, command
from instep.errors import ConfigError, RefusedError, UnavailableError


class ServerDocument(Document, frozen=True):
    """A node behind a balancer, with its addresses by kind of port."""

    node: str
    at: Mapping[str, str]
    writer: bool
    health: str | None
    agent: str | None
    out: bool


class BalancerDocument(Document, frozen=True):
    """A section of [balancers] with the nodes behind it."""

    name: str
    nodes: tuple[ServerDocument, ...]


class BalancerRenderDocument(Document, frozen=True):
    """The text for the sections that were named."""

    kind: str
    only: str | None
    balancers: tuple[BalancerDocument, ...]
    text: str
    warnings: tuple[str, ...]


@command("balancer_render", Role.VIEWER, ConfigError, RefusedError)
class BalancerRenderCommand(Command[BalancerRenderDocument], frozen=True):
    """The file for a balancer, without touching anything; ``before`` is the text to keep around it."""

    kind: str
    names: tuple[str, ...] = ()
    only: str | None = None
    before: str | None = None


class BalancerFileDocument(Document, frozen=True):
    """A file that was rendered, checked and put in place."""

    file: str
    kind: str
    balancers: tuple[str, ...]
    changed: bool
    checked_by: tuple[str, ...] | None
    reloaded: bool
    warnings: tuple[str, ...]


class BalancerReloadDocument(Document, frozen=True):
    """The files."""

    changed: bool
    files: tuple[BalancerFileDocument, ...]


@command("balancer_reload", Role.OPERATOR, ConfigError, RefusedError, UnavailableError)
class BalancerReloadCommand(Command[BalancerReloadDocument], frozen=True):
    """Render, check, put in place and reload; ``replace`` also files that were not rendered before."""

    names: tuple[str, ...] = ()
    replace: bool = False
