"""The reference page of the control socket, from the types in ``instep.api``."""

from __future__ import annotations

import enum
import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import NODEFAULT, UnsetType

from instep.api.catalog import COMMANDS
from instep.api.command import Document

_INTRO = """\
`POST /v1/COMMAND` with a JSON object of parameters, over the Unix socket `control.sock` of the node directory (mode
0600). The answer is JSON lines: any number of `{"progress": ...}` or `{"item": ...}`, then one `{"result": ...}` or
`{"error": ...}`. A parameter that is left out has its default; every command also takes `timeout_s`. A parameter that
is unknown or of a wrong type is refused by name (`unknown_parameter`, `bad_parameter`). Results may gain keys. Every
command may also end with a usage error (2), and with `resources` (8) where this machine lacks something.
"""


def control_page(note: str) -> str:
    """Every command with its parameters, then every object that a result is made of."""
    documents: dict[str, type[Document]] = {}
    parts = ["# The control socket", note, _INTRO]
    for name, kind in sorted(COMMANDS.items()):
        result = kind.result()
        documents.update({each.__name__: each for each in _documents(result)})
        errors = ", ".join(f"{each.code} ({each.exit_code})" for each in kind.errors)
        parts.append(f"## `{name}`\n\n{inspect.getdoc(kind)}\n")
        parts.append(
            f"Role: {kind.role.value}. Answers with {_linked(result)}. Errors: {errors or 'none'}.\n"
        )
        rows = [row for row in _rows(kind) if not row.startswith("| `timeout_s`")]
        parts += ["| parameter | type | default |\n|---|---|---|", *rows, ""] if rows else []
    parts.append("# Objects\n")
    for name, document in sorted(documents.items()):
        parts.append(f"## {name}\n\n{inspect.getdoc(document)}\n\n| key | type | |\n|---|---|---|")
        parts += [*_rows(document), ""]
    return "\n".join(parts).replace("``", "`").rstrip() + "\n"


def _rows(kind: type[msgspec.Struct]) -> Iterator[str]:
    for field in msgspec.structs.fields(kind):
        default = "" if field.default in (NODEFAULT, msgspec.UNSET) else f"`{_json(field.default)}`"
        absent = "may be absent" if field.default is msgspec.UNSET else default
        is_needed = field.required and not issubclass(kind, Document)
        yield f"| `{field.encode_name}` | {_shown(field.type)} | {'required' if is_needed else absent} |"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


_WORDS = {
    str: "string",
    bytes: "base64",
    bool: "bool",
    int: "integer",
    float: "number",
    type(None): "null",
    Any: "any",
}


def _shown(kind: Any) -> str:
    """A type in JSON's words."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_shown(each) for each in arguments if each is not UnsetType)
    if origin is typing.Annotated:
        bounds = arguments[1]
        least, longest = bounds.ge, bounds.max_length
        limit = f"of at most {longest} characters" if least is None else f"from {least:g} on"
        limit += (
            f", at most {bounds.le:g}"
            if least is not None and bounds.le is not None and bounds.le < 1e9
            else ""
        )
        return f"{_shown(arguments[0])} {limit}"
    if origin is tuple:
        return f"list of {_shown(arguments[0])}"
    if origin is not None:
        return f"object of {_shown(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return " or ".join(f"`{one.value}`" for one in kind)
    return _linked(kind) if isinstance(kind, type) and issubclass(kind, Document) else _WORDS[kind]


def _linked(document: type[Document]) -> str:
    return f"[{document.__name__}](#{document.__name__.lower()})"


def _documents(kind: Any) -> Iterator[type[Document]]:
    """A result and all objects in it."""
    if isinstance(kind, type) and issubclass(kind, Document):
        yield kind
        for field in msgspec.structs.fields(kind):
            yield from _documents(field.type)
    for argument in typing.get_args(kind):
        yield from _documents(argument)
