"""The house rules that a linter does not know: sizes, words, reasons. Each says what to do instead.

Sizes are a ratchet: the sizes listed below may only shrink, and nothing joins the lists without a reason.
"""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from instep import errors

ROOT = Path(__file__).resolve().parents[2]
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

LONGER_FILES: dict[str, int] = {
    "src/instep/core/follow/vocabulary.py": 460,
    "src/instep/core/publish/machine.py": 560,
    "src/instep/net/messages/messages.py": 690,
    "src/instep/net/trust/pki.py": 560,
    "src/instep/node/following/follower.py": 670,
    "src/instep/tree/archive/history.py": 450,
    "src/instep/tree/stage/stage.py": 640,
    "tests/cluster/test_hostile_writer.py": 600,
    "tests/cluster/test_hostile_partner.py": 560,
    "tests/cluster/test_peers.py": 490,
    "tests/cluster/test_night.py": 410,
    "tests/support/hostile.py": 500,
    "tests/unit/tree/test_apply.py": 450,
    "tests/unit/tree/test_scan.py": 500,
}
"""Files over the limit, and how long they may be."""
LONGER_FUNCTIONS: dict[str, int] = {}
"""``path:name`` of functions over the limit, and how long they may be."""
NAMES_WITHOUT_A_NOUN = frozenset({"utils.py", "util.py", "helpers.py", "common.py", "misc.py"})
THIS = "tests/unit/test_house.py"

# Written apart, so that this file does not find itself.
BANNED_TEXT = {
    re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b"): "do it now, or write an issue",
    re.compile(r"NotImplemented" + r"Error"): "no stubs; a Protocol has no bodies",
    re.compile(r"asyncio\.sl" + r"eep\((?!0\))"): "tests wait through tests/support/waiting.py",
}
SLEEPERS = frozenset({"tests/support/waiting.py", "tests/support/virtual_time.py"})
MACHINE_TEXT = re.compile(
    r"(?<![\w.])/work/|"
    r"(?:pypi|pythonhosted|npmjs|debian)\.(?:org|com)\b|--(?:extra-)?index-url\s*[=h]|--find-links\s*[=/]"
)


@cache
def files() -> tuple[str, ...]:
    """Everything that git carries or would."""
    told = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    if told.returncode == 0:
        names = told.stdout.decode().split("\0")
    else:  # an unpacked archive
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if ".venv" not in path.parts]
    return tuple(sorted(name for name in names if name and (ROOT / name).is_file()))


def python_files(*folders: str) -> tuple[str, ...]:
    return tuple(name for name in files() if name.endswith(".py") and name.startswith(folders))


@cache
def text_of(name: str) -> str:
    try:
        return (ROOT / name).read_text("utf-8")
    except UnicodeDecodeError:
        return ""


def functions() -> Iterator[tuple[str, int]]:
    for name in python_files("src/", "tests/", "bench/"):
        for node in ast.walk(ast.parse(text_of(name))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{name}:{node.name}", node.end_lineno - node.lineno + 1


def found_in(pattern: re.Pattern[str], names: Iterator[str] | tuple[str, ...]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in names
        for number, line in enumerate(text_of(name).splitlines(), 1)
        if pattern.search(line)
    ]


def test_files_stay_readable_in_one_sitting() -> None:
    lengths = {name: len(text_of(name).splitlines()) for name in python_files("src/", "tests/", "bench/")}
    too_long = {n: k for n, k in lengths.items() if k > LONGER_FILES.get(n, FILE_LINES_MAX)}
    assert not too_long, "split these along their nouns"
    slack = {n for n in LONGER_FILES if n in lengths and lengths[n] <= FILE_LINES_MAX}
    assert not slack, "these fit by now: take them off the list"
    unsaid = {
        name
        for name in python_files("src/")
        if name in LONGER_FILES
        and not re.search(r"400 lines|long file", ast.get_docstring(ast.parse(text_of(name))) or "")
    }
    assert not unsaid, "say at the top why the file is longer than 400 lines"


def test_functions_fit_a_screen() -> None:
    lengths = dict(functions())
    too_long = {n: k for n, k in lengths.items() if k > LONGER_FUNCTIONS.get(n, FUNCTION_LINES_MAX)}
    assert not too_long, "split these"
    slack = {n for n in LONGER_FUNCTIONS if n in lengths and lengths[n] <= FUNCTION_LINES_MAX}
    assert not slack, "these fit by now: take them off the list"
    unsaid = {
        name
        for name in python_files("src/")
        if name in LONGER_FILES
        and not re.search(r"400 lines|long file", ast.get_docstring(ast.parse(text_of(name))) or "")
    }
    assert not unsaid, "say at the top why the file is longer than 400 lines"


def test_every_module_has_a_noun_and_says_what_belongs_there() -> None:
    names = python_files("src/", "tests/", "bench/")
    assert not [name for name in names if Path(name).name in NAMES_WITHOUT_A_NOUN], (
        "a utils.py is a missing noun"
    )
    silent = [
        name for name in names if text_of(name).strip() and not ast.get_docstring(ast.parse(text_of(name)))
    ]
    assert not silent, "the first lines of a file say what it is for"


@pytest.mark.parametrize("pattern", BANNED_TEXT, ids=lambda pattern: pattern.pattern[:20])
def test_banned_words(pattern: re.Pattern[str]) -> None:
    folders = ("tests/",) if "asyncio" in pattern.pattern else ("src/", "tests/")
    names = tuple(name for name in python_files(*folders) if name not in SLEEPERS and name != THIS)
    assert not found_in(pattern, names), BANNED_TEXT[pattern]


def test_whoever_catches_everything_says_why() -> None:
    blind = re.compile(r"^\s*except\s*(?:\(?\s*Exception\b|:)(?!.*# .*\w+ \w+)")
    found = found_in(blind, python_files("src/"))
    assert not found, "catch what you expect; an outermost frame says why beside it"


def test_nothing_is_raised_inside_except_star() -> None:
    """Python before 3.11.4 wraps what is raised there in a group, which no ``except`` of ours catches."""
    found = [
        f"{name}:{inner.lineno}"
        for name in python_files("src/")
        for node in ast.walk(ast.parse(text_of(name)))
        if isinstance(node, ast.TryStar)
        for handler in node.handlers
        for inner in ast.walk(handler)
        if isinstance(inner, ast.Raise)
    ]
    assert not found, "note it there, raise it below"


def test_every_dependency_has_its_reason_beside_it() -> None:
    text = text_of("pyproject.toml")
    project = tomllib.loads(text)["project"]
    wanted = [
        *project["dependencies"],
        *(d for group in project["optional-dependencies"].values() for d in group),
    ]
    for requirement in wanted:
        line = next(line for line in text.splitlines() if f'"{requirement}"' in line)
        assert re.search(r"# \S+ \S+", line), f"say in one line why {requirement} is needed"


def test_every_error_family_is_documented_and_has_its_own_code() -> None:
    families = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.InstepError)
    ]
    assert not [family.__name__ for family in families if not (family.__doc__ or "").strip()]
    assert len({family.code for family in families}) == len(families)
    assert {errors.family_of(family.exit_code) for family in families} == set(families)


def test_nothing_in_the_repository_knows_one_machine() -> None:
    names = tuple(name for name in files() if name != THIS and not name.endswith((".png", ".svg")))
    assert not found_in(MACHINE_TEXT, names), "no paths of one machine, no package index"


def test_locks_pin_by_version_and_hash() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        pins = re.findall(r"^[a-z0-9][^\s=]*==\S+ .*\\$", text_of(lock), re.MULTILINE)
        hashed = re.findall(r"\\\n    --hash=", text_of(lock))
        assert pins
        assert len(pins) <= len(hashed)


def test_no_caller_asks_which_role_a_line_has_by_its_class() -> None:
    """Goal: the role of a line is a method of its service. One place narrows a service to a writer's, or refuses."""
    asked = re.compile(r"isinstance\([^)]*\b(WriterService|FollowService)\b")
    found = [name for name in python_files("src/") if asked.search(text_of(name))]
    assert found == ["src/instep/node/commands/outcomes.py"]
