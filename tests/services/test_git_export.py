"""``log FILESET --git DIR``: generations as commits, read back by the ``git`` program."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from instep.errors import ResourceError
from instep.model.ids import LineId, fileset_name, node_name
from instep.node.retrieval.git_repository import GitRepository
from instep.node.retrieval.git_stream import is_refused
from tests.support.fleet import tree_of
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="the program git is not installed")


def _git(repository: Path, *words: str) -> str:
    found = subprocess.run(
        ("git", "--git-dir", str(repository), *words), capture_output=True, text=True, check=True, timeout=60
    )
    return found.stdout.strip()


def _checked_out(repository: Path, commit: str, to: Path) -> dict[bytes, tuple[Any, ...]]:
    """The tree of a commit as files."""
    to.mkdir()
    _git(repository, "--work-tree", str(to), "checkout", "--force", commit, "--", ".")
    return _files(to)


def _files(tree: Path) -> dict[bytes, tuple[Any, ...]]:
    """The files and symlinks that git keeps."""
    return {path: about for path, about in tree_of(tree, with_times=False).items() if about[0] != "dir"}


def _numbers(repository: Path) -> list[int]:
    """The generations on the branch, oldest first."""
    said = _git(
        repository, "log", "--reverse", "--format=%(trailers:key=Instep-Generation,valueonly,separator=)"
    )
    return [int(line.partition(".")[2]) for line in said.splitlines()]


@in_virtual_time
async def test_generations_become_commits(tmp_path: Path) -> None:
    """Goal: every commit has the files of its generation, with author, time and message; a second run appends only newer
    ones, on the node that writes as on one that follows; nothing of it is read from settings of a user."""
    async with services(tmp_path) as cluster:
        cluster.make(1, writer=('publish = "manual"',))
        main, s1, to = cluster["main"], cluster["s1"], tmp_path / "history.git"
        main.write(
            {"a": "1", "sub/deep/b": "2", 'odd "\\\n\u00e9': "3", "empty": "", "run": "#!", "kind/x": "4"}
        )
        os.symlink("a", main.tree / "link")
        (main.tree / "run").chmod(0o755)
        await cluster.followed("s1")
        await main.publish(author="Ana <x>", message="first\n\nwith a body", wait=True)
        trees = [_files(main.tree)]
        found = await main.call("export_git", fileset="data", to=str(to))
        assert (found["written"], found["skipped"], found["changed"]) == ([1], [], True), found
        assert not (await main.call("export_git", fileset="data", to=str(to)))["changed"]
        os.rename(main.tree / "sub", main.tree / "moved")
        shutil.rmtree(main.tree / "kind")
        main.write({"kind": "a file now", "large": "x" * 3_000_000})
        (main.tree / "link").unlink()
        os.symlink("moved", main.tree / "link")
        await main.publish(author="ben", message="", wait=True)
        trees.append(_files(main.tree))
        (main.tree / "run").chmod(0o644)
        await main.publish(accept_deletions=True, author="cy", wait=True)
        trees.append(_files(main.tree))
        found = await main.call("export_git", fileset="data", to=str(to))
        assert found["written"] == [2, 3], found
        assert _numbers(to) == [1, 2, 3]
        commits = _git(to, "log", "--reverse", "--format=%H").split()
        for number, commit in enumerate(commits):
            assert _checked_out(to, commit, tmp_path / f"tree{number}") == trees[number]
        head = (await main.log())[1]
        said = _git(to, "log", "-1", "--format=%an|%ae|%at|%s|%b", commits[0])
        assert said.startswith("Ana x|Ana@main|") and "|first|with a body" in said, said
        assert f"Instep-Id: {head['id']}" in said
        assert _git(to, "log", "-1", "--format=%s", commits[1]) == "generation 2"
        assert (tmp_path / "tree2/run").stat().st_mode & 0o111 == 0
        assert _git(to, "fsck", "--strict") == ""
        other = tmp_path / "at-s1.git"
        found = await s1.call("export_git", fileset="data", to=str(other))
        assert found["written"] == [1, 2, 3], found
        assert _git(other, "rev-parse", "main") == commits[-1], "the same generations are the same commits"


@in_virtual_time
async def test_a_generation_without_its_contents_is_left_out_by_name(tmp_path: Path) -> None:
    """Goal: contents that no node has any more cost the commits that need them and no other."""
    async with services(tmp_path) as cluster:
        main, to = cluster.add("main"), tmp_path / "history.git"
        main.writes('publish = "manual"', 'history = "off"')
        main.start()
        for text in ("one", "two", "three"):
            main.write({"a": text, "kept": "always", "sub/.git/config": "x"})
            await main.publish()
        found = await main.call("export_git", fileset="data", to=str(to))
        assert found["written"] == [3], found
        assert [one["number"] for one in found["skipped"]] == [1, 2]
        assert "the contents of a " in found["skipped"][0]["reason"], found
        assert (found["left_out"], found["left_out_total"]) == (["sub/.git/config"], 1)
        assert _numbers(to) == [3]


@in_virtual_time
async def test_a_directory_that_holds_anything_else_is_refused(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        main = cluster.add("main")
        main.writes()
        main.start()
        main.write({"a": "1"})
        await main.publish()
        full, foreign, shared = tmp_path / "full", tmp_path / "foreign.git", tmp_path / "shared"
        full.mkdir()
        (full / "mine").touch()
        _git(foreign, "init", "--quiet", "--bare")
        shared.mkdir()
        shared.chmod(0o777)
        for to, code in ((full, "not_this_line"), (foreign, "not_this_line"), (shared, "directory_not_ours")):
            before = sorted(to.rglob("*"))
            error = await main.refuses(code, "export_git", fileset="data", to=str(to))
            assert error.hint and sorted(to.rglob("*")) == before
        await main.refuses("inside_a_fileset", "export_git", fileset="data", to=str(main.tree / "git"))


@in_virtual_time
async def test_an_interrupted_export_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a run that ended between two commits leaves a repository that the next run completes."""
    async with services(tmp_path) as cluster:
        main, to = cluster.add("main"), tmp_path / "history.git"
        main.writes('publish = "manual"')
        main.start()
        for text in ("one", "two", "three"):
            main.write({"a": text})
            await main.publish()
        write, commits = GitRepository.write, list[bytes]()

        def ended(repository: GitRepository, *pieces: bytes) -> None:
            commits.extend(piece for piece in pieces if piece.startswith(b"commit "))
            if len(commits) == 2:
                raise ResourceError("the machine stops here", code="stopped")
            write(repository, *pieces)

        with monkeypatch.context() as patched:
            patched.setattr(GitRepository, "write", ended)
            await main.refuses("stopped", "export_git", fileset="data", to=str(to))
        found = await main.call("export_git", fileset="data", to=str(to))
        assert found["written"] == [1, 2, 3] and _numbers(to) == [1, 2, 3]
        assert _git(to, "fsck", "--strict") == ""


NAMES = (
    "git~1", "GIT~1 .", ".git ", ".GIT.", ".git:x", "a\\.git", "sub/.git./x", ".git", "x/.Git/config",
    ".gitx", "git~2", "git~1x", ".gitmodules", ".gitignore", "a\\b", "git", ".git-old",
)  # fmt: skip
LINKS = (".gitmodules", "GITMOD~1", "gi7eba~1", ".gitmodules .", "gitmod", "x/.gitattributes")


@pytest.mark.parametrize(("names", "is_link"), [(NAMES, False), (LINKS, True)])
def test_names_are_refused_as_git_refuses_them(tmp_path: Path, names: tuple[str, ...], is_link: bool) -> None:
    """Against the program itself: its index takes just the paths that a history of ours holds."""
    _git(tmp_path / "index.git", "init", "--quiet", "--bare")
    made = subprocess.run(
        ("git", "--git-dir", str(tmp_path / "index.git"), "hash-object", "-w", "--stdin"),
        input="x", capture_output=True, text=True, check=True, timeout=60,
    ).stdout.strip()  # fmt: skip
    mode = "120000" if is_link else "100644"
    for name in names:
        taken = subprocess.run(
            ("git", "--git-dir", str(tmp_path / "index.git"), "update-index", "--add", "--cacheinfo", mode, made, name),
            capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        assert is_refused(name.encode(), is_link=is_link) is (taken.returncode != 0), (name, taken.stderr)


@in_virtual_time
async def test_what_git_refuses_is_left_out_by_name_and_the_rest_can_be_checked_out(tmp_path: Path) -> None:
    """Goal: a history with ``git~1`` could not be checked out, and nothing said why."""
    async with services(tmp_path) as cluster:
        cluster.make(1, writer=('publish = "manual"',))
        main, to = cluster["main"], tmp_path / "history.git"
        main.write({"git~1": "1", ".git /x": "2", ".gitmodules": "a file", "a": "3"})
        await cluster.followed("s1")
        await main.publish(wait=True)
        found = await main.call("export_git", fileset="data", to=str(to))
        assert sorted(found["left_out"]) == [".git /x", "git~1"], found
        (main.tree / ".gitmodules").unlink()
        os.symlink("a", main.tree / ".gitmodules")
        await main.publish(accept_deletions=True, wait=True)
        assert (await main.call("export_git", fileset="data", to=str(to)))["left_out"] == [".gitmodules"]
        first, second = _git(to, "log", "--reverse", "--format=%H").split()
        assert set(_checked_out(to, first, tmp_path / "first")) == {b".gitmodules", b"a"}
        assert set(_checked_out(to, second, tmp_path / "second")) == {b"a"}


def test_a_failure_of_git_is_not_an_empty_repository(tmp_path: Path) -> None:
    """Goal: with its branch unreadable an export began from the first generation, on top of the others."""
    line = LineId(fileset_name("data"), node_name("main"))
    repository = GitRepository(os.fsencode(tmp_path / "to.git"), line)
    assert repository.newest() is None
    (tmp_path / "to.git/refs/heads").mkdir(parents=True, exist_ok=True)
    (tmp_path / "to.git/refs/heads/main").write_text("0" * 39 + "1\n")
    with pytest.raises(ResourceError) as caught:
        repository.newest()
    repository.close()
    assert caught.value.error_code == "git_failed"
