"""A work tree of git is noticed, with settings that can be typed as they are printed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from instep.node.config.loading import parse
from instep.node.facts.work_tree import git_words


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ("", ["ignore=.git", "hold_while=.git/index.lock"]),
        ('ignore = ["*.log"]', ["ignore=*.log,.git", "hold_while=.git/index.lock"]),
        ('ignore = [".git/"]\nhold_while = ["busy"]', ["hold_while=busy,.git/index.lock"]),
        ('ignore = [".git"]\nhold_while = [".git/index.lock"]', None),
    ],
)
def test_git_is_noticed_until_it_is_left_out_and_waited_for(
    tmp_path: Path, keys: str, wanted: list[str] | None
) -> None:
    text = f'name = "main"\n[filesets.site]\npath = "{tmp_path}"\nwriter = "main"\n{keys}\n'
    (fileset,) = parse(text, directory=None, path=tmp_path / "instep.toml").filesets.values()
    assert git_words(fileset) is None, "no work tree"
    (tmp_path / ".git").mkdir()
    words = git_words(fileset)
    if wanted is None:
        assert words is None
    else:
        assert words is not None
        typed = shlex.split(words.partition("; next: ")[2])
        assert typed == ["instep", "fileset", "set", "site", *wanted]
