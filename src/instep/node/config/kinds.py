"""The kinds of values: each reads a TOML value, writes one, and knows its words.

A reader takes the raw value and returns the parsed one, or raises ``BadValue`` with a sentence that shows a right
value. The modules that read a whole file or command line turn that into a coded error.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from instep.errors import InstepError

LATER = "is not in this version of instep"
T = TypeVar("T")
E = TypeVar("E", bound=enum.Enum)


class BadValue(ValueError):
    """The value cannot be used; the message completes the sentence "... because it"."""


def as_toml(value: Any) -> Any:
    """A parsed value as TOML has it, where its kind has no form of its own."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, frozenset):
        return sorted(as_toml(item) for item in value)
    if isinstance(value, tuple):
        return [as_toml(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): as_toml(item) for name, item in value.items()}
    if isinstance(value, bytes):
        return os.fsdecode(value)
    return value if isinstance(value, bool | int | float) else str(value)


@dataclass(frozen=True, slots=True)
class ValueKind(Generic[T]):
    """How values of one kind are written. ``words`` are all there are, where they can be counted."""

    read: Callable[[object], T]
    write: Callable[[Any], Any] = as_toml
    words: tuple[str, ...] = field(default=(), kw_only=True)
    is_list: bool = field(default=False, kw_only=True)

    def __call__(self, raw: object) -> T:
        return self.read(raw)


def kind(
    write: Callable[[Any], Any] = as_toml, *, is_list: bool = False
) -> Callable[[Callable[[object], T]], ValueKind[T]]:
    """Makes a kind of its reader."""
    return lambda read: ValueKind(read, write, is_list=is_list)


def string(raw: object) -> str:
    if not isinstance(raw, str):
        raise BadValue("is not a text in quotes")
    if not raw or "\0" in raw:
        raise BadValue("is empty or contains NUL")
    return raw


@kind(is_list=True)
def strings(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list):
        raise BadValue('is not a list such as ["a", "b"]')
    return tuple(string(item) for item in raw)


def _boolean(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise BadValue("is not true or false")
    return raw


boolean = ValueKind(_boolean, words=("true", "false"))


def choice(*words: str, later: tuple[str, ...] = ()) -> ValueKind[str]:
    """One of these words; words of a later version are refused as such."""

    def read(raw: object) -> str:
        if raw in later:
            raise BadValue(LATER)
        if not isinstance(raw, str) or raw not in words:
            raise BadValue(f"is not one of {', '.join(words)}")
        return raw

    return ValueKind(read, words=words)


def matching(pattern: str, why: str) -> ValueKind[str]:
    """A text of this form."""
    form = re.compile(pattern)

    def read(raw: object) -> str:
        text = string(raw)
        if not form.fullmatch(text):
            raise BadValue(why)
        return text

    return ValueKind(read)


def whole_number(least: int, most: float, why: str) -> ValueKind[int]:
    def read(raw: object) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int) or not least <= raw <= most:
            raise BadValue(why)
        return raw

    return ValueKind(read)


def named(parse: Callable[[str], T], why: str) -> ValueKind[T]:
    """A name that ``parse`` accepts; its hint follows the reason."""

    def read(raw: object) -> T:
        try:
            return parse(string(raw))
        except InstepError as error:
            raise BadValue(f"{why}; {error.hint}") from None

    return ValueKind(read)


def enum_of(members: type[E], later: tuple[E, ...] = ()) -> ValueKind[E]:
    """One of an enumeration, by its value."""
    known = choice(
        *(member.value for member in members if member not in later),
        later=tuple(member.value for member in later),
    )
    return ValueKind(lambda raw: members(known(raw)), words=known.words)


def flag(*words: str, true: str) -> ValueKind[bool]:
    """One of two words; whether it is the one that means true."""
    known = choice(*words)
    (false,) = (word for word in words if word != true)
    return ValueKind(lambda raw: known(raw) == true, lambda value: true if value else false, words=words)


def off_or(known: Callable[[object], T], word: str = "off") -> ValueKind[T | None]:
    """A value, or the word that means none."""
    made = known if isinstance(known, ValueKind) else ValueKind(known)
    return ValueKind(
        lambda raw: None if raw == word else made(raw),
        lambda value: word if value is None else made.write(value),
        words=(word, *made.words),
    )


def list_of(known: Callable[[object], T], most: int | None = None) -> ValueKind[tuple[T, ...]]:
    """Values of one kind; with ``most``, each once and no more than so many."""

    def read(raw: object) -> tuple[T, ...]:
        found = tuple(known(item) for item in strings(raw))
        if most is None:
            return found
        if len(found) > most:
            raise BadValue(f"has {len(found)} entries, the limit is {most}")
        return tuple(dict.fromkeys(found))

    return ValueKind(read, is_list=True)


def some_of(*words: str) -> ValueKind[tuple[str, ...]]:
    """Some of these words, in their order."""

    def read(raw: object) -> tuple[str, ...]:
        found = strings(raw)
        wrong = [item for item in found if item not in words]
        if wrong:
            raise BadValue(f"names {', '.join(wrong)}; it can hold {', '.join(words)}")
        return tuple(sorted(set(found), key=words.index))

    return ValueKind(read, words=words, is_list=True)


def as_set(known: ValueKind[tuple[T, ...]]) -> ValueKind[frozenset[T]]:
    return ValueKind(lambda raw: frozenset(known(raw)), words=known.words, is_list=True)


def only(harmless: object, meaning: T) -> ValueKind[T]:
    """A key of a later version: nothing but the value that means "do not", so that a file promises no more than this
    version does."""

    def read(raw: object) -> T:
        if raw != harmless:
            raise BadValue(LATER)
        return meaning

    return ValueKind(read, is_list=isinstance(harmless, list))
