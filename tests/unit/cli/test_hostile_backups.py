"""A directory of backups that came from elsewhere: every lie in it is named as damage, and nothing is made by it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from instep.cli.main import run
from instep.node.backup.catalogue import DUMP, FILES, INDEX, RECORD
from tests.support.backups import make_node

Lie = Callable[[Path], object]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("INSTEP_DIR", str(tmp_path / "node"))
    make_node(tmp_path, tmp_path / "appdata")
    (tmp_path / "appdata/docs").mkdir()
    (tmp_path / "appdata/docs/one").write_bytes(b"1")
    (tmp_path / "appdata/link").symlink_to("docs/one")

    def called(*words: object) -> tuple[int, dict[str, Any]]:
        code = run(["backup", *map(str, words), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return called


def set_record(place: Path, **keys: object) -> None:
    record = json.loads((place / RECORD).read_bytes()) | keys
    (place / RECORD).write_text(json.dumps(record))


def set_index(place: Path, lines: bytes) -> None:
    """With its digest in the record, as its author can write it."""
    (place / INDEX).write_bytes(lines)
    set_record(place, index=blake3(lines).hexdigest())


def other_line(at: int, value: object) -> Lie:
    """The line of the first file, with another value in one place."""

    def lie(place: Path) -> None:
        lines = [json.loads(line) for line in (place / INDEX).read_bytes().splitlines()]
        next(line for line in lines if line[2] == 0)[at] = value
        set_index(place, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))

    return lie


def other_lines(change: Callable[[list[bytes]], list[bytes]]) -> Lie:
    def lie(place: Path) -> None:
        set_index(place, b"".join(change((place / INDEX).read_bytes().splitlines(keepends=True))))

    return lie


def pipe_at(name: str) -> Lie:
    def lie(place: Path) -> None:
        (place / name).unlink()
        os.mkfifo(place / name)

    return lie


def outside(place: Path) -> None:
    """The files lie where the name of the fileset leads to, so that all but the name is in order."""
    name = "../etc"
    (place / FILES / "appdata").rename(place / "etc")
    set_record(place, filesets={name: "/etc"})
    set_index(place, (place / INDEX).read_bytes().replace(b'"appdata"', json.dumps(name).encode()))


def nothing_left(place: Path) -> None:
    (place / FILES / "appdata").rename(place / FILES / "other")


def link_at(name: str) -> Lie:
    """To the same files: all that is below is in order."""

    def lie(place: Path) -> None:
        (place / name).rename(place.parent.parent / "elsewhere")
        (place / name).symlink_to(place.parent.parent / "elsewhere")

    return lie


def no_dump(place: Path) -> None:
    os.mkfifo(place / DUMP)
    set_record(place, dump="0" * 64)


def directory_gone(place: Path) -> None:
    """An empty one, which no digest is of."""
    lines = (place / INDEX).read_bytes()
    set_index(place, lines + msgspec.json.encode(("appdata", b"zz", 1, 0, b"")) + b"\n")


def names(folder: Path) -> list[Path]:
    """All but the node's own state and the empty folder in which restores are laid out."""
    found = (each for each in folder.rglob("*") if not each.is_relative_to(folder / "node"))
    return sorted(each for each in found if each != folder / "appdata/.instep-restore")


IN_RECORD: list[Lie] = [
    outside,
    pipe_at(RECORD),
    lambda place: set_record(place, filesets={"/etc": "/etc"}),
    lambda place: set_record(place, id="../../20260101T000000Z"),
    lambda place: set_record(place, bytes=-1),
    lambda place: set_record(place, label="\x1b[2J"),
    lambda place: (place / RECORD).write_bytes(b'{"id":"\xff"}'),
    lambda place: (place / RECORD).write_bytes(b'{"more":' + b"[" * 100_000),
    lambda place: os.truncate(place / RECORD, 1 << 40),
]
IN_INDEX: list[Lie] = [
    pipe_at(INDEX),
    other_line(0, "other"),
    other_line(0, "../../etc"),
    other_line(1, "Li4vLi4vZXZpbA=="),
    other_line(1, "YQBi"),
    other_line(1, ""),
    other_line(1, "bm93aGVyZS9vbmU="),
    other_line(2, 9),
    other_lines(lambda lines: lines + lines[-1:]),
    other_lines(lambda lines: lines[::-1]),
    other_lines(lambda lines: [*lines, b"\xff" * 100_000]),
    other_lines(lambda lines: [*lines, b'["appdata","eg==",0,0,"",' + b"[" * 60_000]),
]
IN_FILES: list[Lie] = [
    pipe_at("files/appdata/docs/one"),
    pipe_at("files/appdata/link"),
    link_at("files"),
    link_at("files/appdata"),
    link_at("files/appdata/docs"),
    nothing_left,
    directory_gone,
    no_dump,
]


@pytest.mark.parametrize("lie", IN_RECORD + IN_INDEX + IN_FILES)
def test_a_lie_in_a_backup_is_damage_and_makes_nothing(tmp_path: Path, call: Any, lie: Lie) -> None:
    sound, backup = call("create")[1]["id"], call("create")[1]["id"]
    lie(tmp_path / "backups" / backup)
    before = names(tmp_path)
    for words in (("verify", backup), ("restore", backup, "--to", tmp_path / "out"), ("restore", backup)):
        code, found = call(*words)
        assert (code, found["error"]["code"]) == (10, "backup_damaged"), words
        assert names(tmp_path) == before, words
    code, found = call("list")  # the step that the error names
    assert [each["id"] for each in found["backups"]] == ([sound] if lie in IN_RECORD else [sound, backup])
    assert (code, len(found["damaged"])) == ((10, 1) if lie in IN_RECORD else (0, 0))
    assert call("restore", sound, "--to", tmp_path / "out")[0] == 0


def test_the_dump_gives_way_to_a_fileset_of_its_name(tmp_path: Path, call: Any) -> None:
    config = tmp_path / "node/instep.toml"
    text = (
        config.read_text()
        .replace("[filesets.appdata]", f'[filesets."{DUMP}"]')
        .replace('["appdata"]', f'["{DUMP}"]')
    )
    config.write_text(f'{text}\ndatabase = {{ dump = ["/bin/echo", "rows"], restore = ["/bin/true"] }}\n')
    code, made = call("create")
    assert code == 0, made
    code, found = call("restore", made["id"], "--to", tmp_path / "out")
    assert code == 0, found
    assert (tmp_path / "out" / DUMP / "docs/one").read_bytes() == b"1"
    assert Path(found["dump"]).read_text() == "rows\n"


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("appdata/docs/new", "inside_a_fileset"),
        ("link/new", "inside_a_fileset"),
        ("disk", "inside_a_fileset"),
        ("backups/new", "among_the_backups"),
        ("backups/ID/new", "among_the_backups"),
    ],
)
def test_a_backup_is_not_laid_out_where_it_would_be_carried(
    tmp_path: Path, call: Any, where: str, error: str
) -> None:
    """Else the keys of a fileset of class secret are published a moment later."""
    (tmp_path / "link").symlink_to(tmp_path / "appdata/docs")
    (tmp_path / "disk").mkdir()  # its disk is not mounted, and the root of another fileset is on it
    with (tmp_path / "node/instep.toml").open("a") as config:
        config.write(f'[filesets.more]\npath = "{tmp_path}/disk/more"\nwriter = "main"\n')
    backup = call("create")[1]["id"]
    before = names(tmp_path)
    code, found = call("restore", backup, "--to", tmp_path / where.replace("ID", backup))
    assert (code, found.get("error", found).get("code")) == (4, error), found
    assert names(tmp_path) == before
