"""Troubles of the night: the answer of the first command on a real node, its first step typed, and the table of both.

The table is a page of the guide. ``INSTEP_GOLDEN=write`` writes the rows of the tests that run; look at the difference.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType

from tests.support.commands import ROOT
from tests.support.fleet import Answer, Fleet
from tests.support.waiting import eventually

__all__ = ["PAGE", "Night", "titles"]

PAGE = ROOT / "docs/guide/night.md"
HEAD = "| what happened | typed on | `instep status` says | its first step |"
_STEP = re.compile(r"^(?:on|at) (?P<node>\S+): (?P<rest>.*)$")
_COMMAND = re.compile(r"\binstep (?P<words>[^;]+?)(?:$|;| &&)")
_ALIKE = (
    (re.compile(r"\b127\.0\.0\.1:\d+"), "10.20.0.1:7443"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?"), "2027-12-31 02:31"),
    (re.compile(r"(?<=shows )2027-12-31"), "2028-02-04"),
    (re.compile(r"\b\d\d:\d\d(?::\d\d)?\b"), "02:31"),
    (re.compile(r"\b\d[\d.]* (?:bytes|[KMG]iB|[kMG]?B)\b"), "N MiB"),
    (re.compile(r"(?<=free are )\d+\b(?! [kKMG]?i?B)"), "N MiB"),
    (re.compile(r"(?<=, where )\d+(?= stay free)"), "N MiB"),
    (re.compile(r"\b\d+ of \d+ paths"), "60 of 60 paths"),
    (re.compile(r"^line \d+"), "line 17"),
    (
        re.compile(r"; partners keep generation \d+$"),
        "",
    ),  # the watch of the root does not say it, the scan does
    (re.compile(r"\b(process|kill -CONT) \d+"), r"\1 4711"),
    (re.compile(r"\bgeneration \d+"), "generation 42"),
    (re.compile(r"\bdata \d+$"), "data 41"),
)
"""The parts that differ from one night to the next, and how the table has them."""


def titles() -> list[str]:
    """The troubles of the page, in its order."""
    return [row.split(" | ")[0].removeprefix("| ") for row in _rows()]


def _rows() -> list[str]:
    _, _, table = PAGE.read_text().partition(HEAD)
    return [line for line in table.splitlines()[2:] if line.startswith("| ")]


@dataclass
class Night:
    """A fleet in trouble, and the operator who looks at it."""

    fleet: Fleet
    roots: dict[str, Path] = field(default_factory=dict)
    """Roots of ``data`` that are elsewhere than a fleet has them."""
    at: str = ""
    after: set[str] = field(default_factory=set)
    """Nodes that go on naming the trouble for a while when it is over."""
    says: str = ""
    step: str = ""
    """The trouble as ``status`` says it on ``at``, and the first step that stands there."""

    def text(self, node: str) -> str:
        return self.fleet[node].run("status", json=False).stdout

    def looks(self, node: str, *words: str) -> str:
        """Type ``instep status`` there until it begins with the trouble that has these words; its first step."""
        seen: list[str] = [""]

        def is_said() -> bool:
            seen[0] = self.text(node)
            self.says, self.step = _first(seen[0])
            return bool(self.step) and all(word in self.says for word in words)

        eventually(is_said, describe=lambda: f"{words} on {node}:\n{seen[0]}\n{self.fleet[node].log()}")
        self.at = node
        return self.step

    def types(
        self, number: int = 0, values: Mapping[str, str] = MappingProxyType({}), *, expect: int | None = 0
    ) -> Answer:
        """Type a command of the first step as it stands there, with values for its words in capitals."""
        where, rest = self.at, self.step
        commands = []
        for part in re.split(r"; |(?<=,) ", rest):
            found = _STEP.search(part) or re.search(r"\b(?:on|at) (?P<node>\S+): (?P<rest>instep .*)$", part)
            where = found["node"] if found and found["node"] in self.fleet.nodes else self.at
            commands += [(where, each["words"]) for each in _COMMAND.finditer(part)]
        node, typed = commands[number]
        words = [values.get(word, word) for word in shlex.split(typed)]
        return self.fleet[node].run(*words, expect=expect)

    def assert_over(self) -> None:
        """A change at the writer reaches every node, and no status has a step left."""
        self.fleet.write({"over": os.urandom(8).hex()})
        self.fleet.wait()
        eventually(self._same, describe="equal trees")
        for name in self.fleet.nodes.keys() - self.after:
            eventually(partial(self._is_quiet, name), describe=partial(self.text, name))

    def _is_quiet(self, name: str) -> bool:
        return "next:" not in self.text(name)

    def _same(self) -> bool:
        self.fleet.assert_same()
        return True

    def assert_in_table(self, title: str) -> None:
        """The page has this row, or gets it."""
        cells = (title, self.at, self._alike(self.says), self._alike(self.step))
        row = "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        known = {line.split(" | ")[0]: line for line in _rows()}
        before = known.get(f"| {title}")
        if os.environ.get("INSTEP_GOLDEN") == "write":
            text = PAGE.read_text()
            PAGE.write_text(text.replace(before, row) if before is not None else f"{text.rstrip()}\n{row}\n")
            return
        assert before == row, f"{title}: INSTEP_GOLDEN=write, then look at the difference"

    def _alike(self, text: str) -> str:
        for name, node in self.fleet.nodes.items():
            for path, shown in ((self.fleet.tree(name), "/srv/data"), (node.directory, "/var/lib/instep")):
                text = text.replace(str(path), shown)
            text = text.replace(f"sport = :{node.port}", "sport = :7443")
        for path in self.roots.values():
            text = text.replace(str(path), "/srv/data").replace(str(path.parent), "/srv")
        text = text.replace(str(self.fleet.base), "/srv")
        for pattern, shown in _ALIKE:
            text = pattern.sub(shown, text)
        return text


def _first(text: str) -> tuple[str, str]:
    """The first step of a status, and the line that it stands below, without its margin."""
    lines = [line.strip() for line in text.splitlines()]
    for above, line in itertools.pairwise(lines):
        if line.startswith("next: "):
            return re.sub(r"\s{2,}", " ", above), line.removeprefix("next: ")
    return "", ""
