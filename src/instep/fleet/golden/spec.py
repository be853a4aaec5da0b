"""The nouns of golden answers: the request, the answer, and the verdict of comparing two answers."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgspec

from instep.fleet.hooks.spec import HookSpec


class CompareBy(enum.Enum):
    """The part of two answers that must agree beyond the expected status."""

    STATUS = "status"
    DIGEST = "digest"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class GoldenSpec:
    """One request. ``ask`` is how it is made: method and whole URL, deadline, retries, credentials, expected status.

    ``ignore`` are regular expressions whose matches do not count (``DIGEST``). Of an ``IMAGE`` at most
    ``max_share_percent`` of the pixels may differ by more than ``tolerance`` (0 to 255) in a channel.
    """

    name: str
    ask: HookSpec
    compare: CompareBy = CompareBy.DIGEST
    ignore: tuple[str, ...] = ()
    tolerance: int = 0
    max_share_percent: float = 0.0
    is_change_expected: bool = False

    @property
    def question(self) -> str:
        """Two answers can be compared when this is the same: the request and the compared part of its answer."""
        assert self.ask.http is not None
        return repr((self.ask.http, self.ask.body, self.compare.value, self.ignore))


class GoldenAnswer(msgspec.Struct, frozen=True, array_like=True):
    """The answer to one request. ``sha256`` (hex) is of the body, without the text that ``ignore`` matches.

    ``picture`` is the whole body of an image, to compare another with. ``problem`` is a sentence's end that says why
    this is no answer to compare with, as "answered 500, expected 200"; empty when it is one.
    """

    name: str
    question: str
    status: int = 0
    sha256: str = ""
    size_bytes: int = 0
    picture: bytes = b""
    problem: str = ""

    def as_json(self) -> dict[str, object]:
        """For people: without the picture."""
        return {
            "status": self.status or None,
            "sha256": self.sha256 or None,
            "bytes": self.size_bytes,
            "problem": self.problem or None,
        }


@dataclass(frozen=True, slots=True)
class GoldenVerdict:
    """The verdict on one request. ``reason`` is empty when all is well; ``is_compared`` is False where there was
    nothing to compare with. ``largest`` (0 to 255) and ``share_percent`` are of images that differ."""

    spec: GoldenSpec
    now: GoldenAnswer
    before: GoldenAnswer | None = None
    reason: str = ""
    is_compared: bool = False
    is_difference: bool = False
    largest: int | None = None
    share_percent: float | None = None

    @property
    def ok(self) -> bool:
        return not self.reason
