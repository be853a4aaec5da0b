"""Kinds of faults, each as places in a module where it can be planted, with the text that it leaves there."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["KINDS", "Fault", "faults_in", "planted"]

_OTHER: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_BOUNDARIES = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_WORDS = frozenset(("debug", "info", "warning", "error", "exception", "failpoint", "register", "say", "log"))
"""Calls whose loss no promise is about: lines of the log, and places for tests."""
_NEVER_DRAWN = frozenset(("__repr__", "__str__"))
"""Functions that only make text for people."""
_CLOCKS = ("now", "time", "monotonic", "deadline", "until")
_CLOCK_ENDS = ("_ms", "_at", "_s", "_ns")
_EITHER_WAY = frozenset(("min", "max", "compare_digest"))
"""Calls whose first two arguments may change places."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One place: ``text`` replaces the source between two positions (line from 1, column in bytes)."""

    kind: str
    begin: tuple[int, int]
    end: tuple[int, int]
    text: str


Found = Iterator[tuple[ast.AST, ast.AST]]
Kind = Callable[[ast.AST], Iterator[tuple[ast.AST, ast.AST]]]
"""For a node of the tree: pairs of a node and its replacement."""


def _negated(node: ast.AST) -> Found:
    if isinstance(node, ast.If | ast.While | ast.IfExp) and not isinstance(node.test, ast.Constant):
        yield node.test, ast.UnaryOp(ast.Not(), node.test)


def _boundary(node: ast.AST) -> Found:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], _BOUNDARIES):
        if any(_is_edge_without_promise(side) for side in (node.left, node.comparators[0])):
            return
        yield node, ast.Compare(node.left, [_OTHER[type(node.ops[0])]()], node.comparators)


def _equality(node: ast.AST) -> Found:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and not isinstance(node.ops[0], _BOUNDARIES):
        yield node, ast.Compare(node.left, [_OTHER[type(node.ops[0])]()], node.comparators)


def _and_or(node: ast.AST) -> Found:
    if isinstance(node, ast.BoolOp):
        yield node, ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)


def _off_by_one(node: ast.AST) -> Found:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield node, ast.Constant(node.value + 1)


def _turned_constant(node: ast.AST) -> Found:
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield node, ast.Constant(not node.value)


def _plus_minus(node: ast.AST) -> Found:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        if any(
            isinstance(each, ast.JoinedStr | ast.Constant) and not _is_number(each) for each in ast.walk(node)
        ):
            return
        yield node, ast.BinOp(node.left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), node.right)


def _dropped_call(node: ast.AST) -> Found:
    if isinstance(node, ast.Expr):
        call = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(call, ast.Call) and _name(call) not in _WORDS:
            yield node, ast.Pass()


def _dropped_setting(node: ast.AST) -> Found:
    if isinstance(node, ast.Assign | ast.AugAssign):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(target, ast.Attribute | ast.Subscript):
            yield node, ast.Pass()


def _swapped(node: ast.AST) -> Found:
    if isinstance(node, ast.Call) and len(node.args) >= 2 and _name(node) not in _EITHER_WAY:
        first, second, *others = node.args
        plain = ast.Name | ast.Attribute | ast.Call
        if isinstance(first, plain) and isinstance(second, plain) and ast.dump(first) != ast.dump(second):
            yield node, ast.Call(node.func, [second, first, *others], node.keywords)


def _removed_guard(node: ast.AST) -> Found:
    leaves = ast.Return | ast.Raise | ast.Continue | ast.Break
    if isinstance(node, ast.If) and not node.orelse and isinstance(node.body[-1], leaves):
        yield node.test, ast.Constant(False)


def _early_return(node: ast.AST) -> Found:
    returns_nothing = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
        isinstance(node.returns, ast.Constant) and node.returns.value is None
    )
    if returns_nothing:
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        body = node.body[1:] if ast.get_docstring(node) else node.body
        generates = any(isinstance(each, ast.Yield | ast.YieldFrom) for each in ast.walk(node))
        if len(body) > 1 and not generates and node.name != "__init__":
            yield body[1], ast.Return()


def _swallowed(node: ast.AST) -> Found:
    if isinstance(node, ast.ExceptHandler):
        for each in node.body:
            if isinstance(each, ast.Raise):
                yield each, ast.Pass()


KINDS: dict[str, Kind] = {
    "negated condition": _negated,
    "boundary": _boundary,
    "equality turned": _equality,
    "and for or": _and_or,
    "off by one": _off_by_one,
    "constant turned": _turned_constant,
    "plus for minus": _plus_minus,
    "dropped call": _dropped_call,
    "dropped setting": _dropped_setting,
    "swapped arguments": _swapped,
    "removed guard": _removed_guard,
    "early return": _early_return,
    "swallowed error": _swallowed,
}


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def _is_edge_without_promise(side: ast.expr) -> bool:
    """A moment, a bound with a name in capitals, or a descriptor: no promise says on which side its edge lies."""
    for each in ast.walk(side):
        name = each.attr if isinstance(each, ast.Attribute) else each.id if isinstance(each, ast.Name) else ""
        word = name.lower()
        if word in _CLOCKS or word.endswith((*_CLOCK_ENDS, "fd")) or (name.isupper() and len(name) > 1):
            return True
    return False


def _name(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def faults_in(source: str) -> list[Fault]:
    """Every fault that can be planted in a module."""
    found: list[Fault] = []
    for node in _behaviour(ast.parse(source)):
        for kind, places in KINDS.items():
            for old, new in places(node):
                assert isinstance(old, ast.expr | ast.stmt)
                text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(new)))
                text = f"({text})" if isinstance(old, ast.expr) else text
                assert old.end_lineno is not None
                assert old.end_col_offset is not None
                found.append(
                    Fault(kind, (old.lineno, old.col_offset), (old.end_lineno, old.end_col_offset), text)
                )
    return found


def _behaviour(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes of functions, less annotations, decorators, defaults, texts of errors, and calls of the log."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.ClassDef):
            yield from _behaviour(child)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and child.name not in _NEVER_DRAWN:
            yield child
            for statement in child.body:
                yield from _within(statement)


def _within(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.JoinedStr | ast.Raise | ast.Assert | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.Call) and (_name(node) in _WORDS or _name(node).endswith("Error")):
        return
    yield node
    if (
        isinstance(node, ast.UnaryOp)
        and isinstance(node.op, ast.USub)
        and isinstance(node.operand, ast.Constant)
    ):
        return  # a number below 0 is a sign that there is none: any other says the same
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield from _within(each)


def planted(source: str, fault: Fault) -> str:
    """The module with the fault in it."""
    lines = source.encode().split(b"\n")
    first, last = fault.begin[0] - 1, fault.end[0] - 1
    before, after = lines[first][: fault.begin[1]], lines[last][fault.end[1] :]
    return b"\n".join([*lines[:first], before + fault.text.encode() + after, *lines[last + 1 :]]).decode()
