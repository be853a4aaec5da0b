"""The names of persons, as callers of commands and as authors of generations; and how several become one author. Pure.

The author of a generation is one text. It can name several persons: each one asked for the publish, or it was for that
person, or owns the files. A program with a token is named behind the owner of the token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

AUTHOR_MAX = 256
"""Characters of the author of a generation."""
MESSAGE_MAX = 16 << 10
"""Characters of the message of a generation."""
AUTO_AUTHOR = "auto"
"""Stands as author where no operator asked for the publish."""
BETWEEN = "; "
_BY_TOKEN = " by token "
_PARTS = re.compile("[,;]")


def by_token(person: str, token: str) -> str:
    """The name of a program that acts with a token, behind the owner of the token."""
    return f"{person}{_BY_TOKEN}{token}"


def person_of(name: str) -> str:
    """The person of a caller, whether a program with a token or not."""
    return name.partition(_BY_TOKEN)[0]


def lines(messages: Iterable[str]) -> str:
    """One message of all of them, each once and on lines of its own."""
    return "\n".join(dict.fromkeys(message for message in messages if message))


def joined(authors: Iterable[str]) -> str:
    """One author for all of them, each named once."""
    return BETWEEN.join(dict.fromkeys(author for author in authors if author))


def fit(authors: Sequence[str], messages: Sequence[str]) -> bool:
    """Whether one generation can name all of these."""
    return len(joined(authors)) <= AUTHOR_MAX and len(lines(messages)) <= MESSAGE_MAX


def persons_of(author: str) -> frozenset[str]:
    """The persons that an author names: callers (``ana; ben by token deploy``), another person whom a caller names
    (``carl, by ana``), and the owner of the files (``auto, files of ana``). A person of another node (``s1: ana``)
    counts by the name alone, and a publish by itself (``auto``) names no person."""
    words = (word.strip() for word in _PARTS.split(author))
    names = (word.removeprefix("files of ").removeprefix("by ") for word in words)
    return frozenset(person_of(name.rpartition(": ")[2]) for name in names) - {"", AUTO_AUTHOR}
