"""The error tree: every operating error carries a code, an exit code, a retry verdict, facts and a hint.

An outcome that the caller must branch on is a value, not an exception. A broken invariant is an
``assert``. Everything else that can go wrong while operating is an ``InstepError`` of one of the families
below; the reference page of codes is generated from these classes.
"""

from __future__ import annotations

import enum
import re
from typing import ClassVar, Self

_BY_ITSELF = re.compile(r"(?:then )?(?:it|instep) goes on by itself(?:, at once with: instep retry [^;]+)?")


class Retry(enum.Enum):
    """Whether the same call can succeed later without any change by an operator."""

    NEVER = "never"
    LATER = "later"
    ELSEWHERE = "elsewhere"


class InstepError(Exception):
    """Base of all operating errors. ``code`` is stable and documented; ``facts`` are JSON-ready values."""

    code: ClassVar[str] = "unexpected"
    exit_code: ClassVar[int] = 1
    retry: Retry = Retry.NEVER

    def __init__(
        self, reason: str, *, hint: str | None = None, code: str | None = None, **facts: object
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.facts: dict[str, object] = facts
        self.error_code: str = code or self.code

    def later(self) -> Self:
        """This one can succeed by itself, whatever its family says."""
        self.retry = Retry.LATER
        return self

    def of_a_command(self) -> Self:
        """The error that a command ends with: a node retries what it does by itself, and no command that it refused."""
        if self.hint is not None:
            self.hint = _BY_ITSELF.sub("then repeat the command", self.hint)
        return self

    def as_json(self) -> dict[str, object]:
        """The ``error`` object that every ``--json`` command prints."""
        return {
            "code": self.error_code,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "facts": self.facts,
            "hint": self.hint,
        }


class UsageError(InstepError):
    """The command line cannot be understood."""

    code = "usage"
    exit_code = 2


class ConfigError(InstepError):
    """``instep.toml`` or a setting is wrong; ``facts['problems']`` names all of them at once."""

    code = "configuration"
    exit_code = 3


class RefusedError(InstepError):
    """A policy says no: a guard, a gate, a check, a non-empty directory."""

    code = "refused"
    exit_code = 4


class NotAllowedError(InstepError):
    """The caller may not do this: links, allow lists, identities, tokens."""

    code = "not_allowed"
    exit_code = 5


class ContentionError(InstepError):
    """Another caller or node got there first: locked, outdated, the head moved."""

    code = "contention"
    exit_code = 6
    retry = Retry.LATER


class UnavailableError(InstepError):
    """A node, a daemon or a service did not answer within its deadline."""

    code = "unavailable"
    exit_code = 7
    retry = Retry.LATER


class ResourceError(InstepError):
    """Disk, memory, descriptors or permissions of this machine are missing."""

    code = "resources"
    exit_code = 8
    retry = Retry.LATER


class PeerError(InstepError):
    """A peer sent a message that the protocol forbids; nothing of it was used."""

    code = "peer_misbehaved"
    exit_code = 9
    retry = Retry.ELSEWHERE


class DamagedError(InstepError):
    """Bytes do not match their digest, stat or record."""

    code = "damaged"
    exit_code = 10


_FAMILIES = {family.exit_code: family for family in InstepError.__subclasses__()}
"""The families above: an error of a narrower kind is a subclass of one of them."""


def family_of(exit_code: object, otherwise: type[InstepError] = InstepError) -> type[InstepError]:
    """The family that ends with this exit code: an error that came over a connection becomes one of ours again."""
    return _FAMILIES.get(exit_code, otherwise) if isinstance(exit_code, int) else otherwise
