"""How tests are dealt to workers: longest first, and what shares nodes stays together."""

from __future__ import annotations

from pathlib import Path

from tests.support.spreading import LONGEST, SHARED, rank_of, unit_of

ROOT = Path(__file__).resolve().parents[2]


def test_each_test_that_is_named_exists() -> None:
    for name in (*LONGEST, *SHARED):
        file, _, test = name.partition("::")
        assert f"def {test}" in (ROOT / file).read_text(), name


def test_files_whose_tests_share_a_fixture_are_not_dealt_one_by_one() -> None:
    for file in (ROOT / "tests").rglob("test_*.py"):
        name = file.relative_to(ROOT).as_posix()
        if 'scope="module"' in file.read_text() and "support" not in name:
            assert unit_of(f"{name}::test_one") == unit_of(f"{name}::test_two"), name


def test_the_longest_come_first_and_the_small_ones_last() -> None:
    names = [
        "tests/unit/a.py::t",
        "tests/cluster/test_links.py::t",
        "tests/property/p.py::t",
        f"{LONGEST[1]}::t",
        f"{LONGEST[0]}::t",
    ]
    assert sorted(names, key=rank_of) == [names[4], names[3], names[1], names[2], names[0]]
