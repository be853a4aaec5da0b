"""Every value of a machine as JSON, and back: events, effects, facts, and the machine itself.

A value of a type of ``core`` or ``model`` is an object with its type's name. Only such types are made when a record is
loaded, and only by setting their fields: loading a record runs no other code. An object that can change is written
once and referred to after that, so that two owners of one object still share it.
"""

from __future__ import annotations

import enum
import importlib
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

import msgspec

from instep.errors import DamagedError

_ROOMS = ("instep.core.", "instep.model.")
_ENUMS = ("instep.errors",)
_MANY: dict[str, Any] = {"tuple": tuple, "list": list, "set": set, "frozenset": frozenset}
DEPTH_MAX = 100
_WIDE = 1 << 63


def to_plain(value: object) -> Any:
    """``value`` as dicts, lists, text, numbers, booleans and None."""
    return _Writer().plain(value, 0)


def from_plain(plain: Any) -> Any:
    """The value again. ``DamagedError`` for what ``to_plain`` of this version does not write."""
    try:
        return _Reader().value(plain)
    except (AttributeError, ImportError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise DamagedError(
            f"the record holds a value that this version does not know: {type(error).__name__}: {error}",
            hint="replay it with the version of instep that the record names",
            code="bad_record",
        ) from error


class _Writer:
    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._kept: list[object] = []
        """The objects of ``_seen``, so that no id is used twice."""

    def plain(self, value: object, depth: int) -> Any:
        if value is None or isinstance(value, bool | float) or type(value) is str:
            return value
        if isinstance(value, enum.Enum):
            return {"enum": _name_of(type(value)), "value": self.plain(value.value, depth + 1)}
        if isinstance(value, int):
            return value if -_WIDE < value < _WIDE else {"int": str(value)}
        if isinstance(value, str):
            return str(value)
        if isinstance(value, bytes):
            return {"bytes": value.hex()}
        if depth > DEPTH_MAX:
            return {"text": repr(value)[:200]}
        return self._composed(value, depth + 1)

    def _composed(self, value: object, depth: int) -> Any:
        for name, kind in _MANY.items():
            if type(value) is kind:
                items = [self.plain(item, depth) for item in value]  # type: ignore[attr-defined]
                return {name: sorted(items, key=repr) if name.endswith("set") else items}
        if isinstance(value, deque):
            return {"deque": [self.plain(item, depth) for item in value], "most": value.maxlen}
        if isinstance(value, dict):
            return {"dict": [[self.plain(k, depth), self.plain(v, depth)] for k, v in value.items()]}
        if not _is_ours(type(value)) and not isinstance(value, random.Random):
            return {"text": repr(value)[:200]}
        if isinstance(value, tuple):
            return {"type": _name_of(type(value)), "items": [self.plain(item, depth) for item in value]}
        return self._object(value, depth)

    def _object(self, value: object, depth: int) -> Any:
        if _is_frozen(value):
            return {"type": _name_of(type(value)), "fields": self._of_fields(value, depth)}
        known = self._seen.get(id(value))
        if known is not None:
            return {"again": known}
        number = len(self._kept)
        self._seen[id(value)] = number
        self._kept.append(value)
        if isinstance(value, random.Random):
            return {"random": self.plain(value.getstate(), depth), "number": number}
        return {"type": _name_of(type(value)), "fields": self._of_fields(value, depth), "number": number}

    def _of_fields(self, value: object, depth: int) -> dict[str, Any]:
        return {name: self.plain(found, depth) for name, found in _fields(value)}


class _Reader:
    def __init__(self) -> None:
        self._seen: dict[int, object] = {}

    def value(self, plain: Any) -> Any:
        if not isinstance(plain, dict):
            if isinstance(plain, list):
                raise ValueError("a bare list")
            return plain
        if "type" in plain:
            return self._object(plain)
        if "again" in plain:
            return self._seen[plain["again"]]
        if "enum" in plain:
            return _type_of(plain["enum"], _ROOMS, _ENUMS)(self.value(plain["value"]))
        if "random" in plain:
            made = random.Random(0)
            made.setstate(self.value(plain["random"]))
            self._seen[plain["number"]] = made
            return made
        return self._composed(plain)

    def _composed(self, plain: dict[str, Any]) -> Any:
        for name, kind in _MANY.items():
            if name in plain:
                return kind(self.value(item) for item in plain[name])
        if "dict" in plain:
            return {self.value(key): self.value(found) for key, found in plain["dict"]}
        if "deque" in plain:
            return deque((self.value(item) for item in plain["deque"]), plain["most"])
        if "bytes" in plain:
            return bytes.fromhex(plain["bytes"])
        if "int" in plain:
            return int(plain["int"])
        return plain["text"]

    def _object(self, plain: dict[str, Any]) -> Any:
        kind = _type_of(plain["type"], _ROOMS, ())
        if issubclass(kind, msgspec.Struct):
            return kind(**{name: self.value(found) for name, found in plain["fields"].items()})
        if issubclass(kind, tuple):
            return kind(*(self.value(item) for item in plain["items"]))
        made = object.__new__(kind)
        if "number" in plain:
            self._seen[plain["number"]] = made
        for name, found in plain["fields"].items():
            object.__setattr__(made, name, self.value(found))
        return made


def _is_frozen(value: object) -> bool:
    """Whether the object never changes: two equal ones are as good as one, and written alike."""
    if isinstance(value, msgspec.Struct):
        return True
    params = getattr(type(value), "__dataclass_params__", None)
    return params is not None and bool(params.frozen)


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith(_ROOMS)


def _name_of(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _type_of(name: str, rooms: tuple[str, ...], modules: tuple[str, ...]) -> Any:
    module, _, qualname = name.partition(":")
    if not module.startswith(rooms) and module not in modules:
        raise ValueError(f"{name} is not of this program's machines")
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = vars(found)[part]
    if not isinstance(found, type) or found.__module__ != module:
        raise ValueError(f"{name} is no type")
    return found


def _fields(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield name, getattr(value, name)
        return
    if is_dataclass(value):
        for name in value.__dataclass_fields__:
            if hasattr(value, name):
                yield name, getattr(value, name)
        return
    names = [name for kind in type(value).__mro__ for name in _slots(kind)]
    for name in names:
        if hasattr(value, name):
            yield name, getattr(value, name)
    yield from getattr(value, "__dict__", {}).items()


def _slots(kind: type) -> tuple[str, ...]:
    found = vars(kind).get("__slots__", ())
    return (found,) if isinstance(found, str) else tuple(found)
