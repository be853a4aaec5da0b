"""Edits keep comments and order, refuse what would be wrong, and change nothing the second time."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instep.errors import ConfigError, ContentionError, RefusedError, ResourceError, UsageError
from instep.node.config.editing import edits, file_replacement
from instep.node.config.loading import load
from instep.node.directory import NodeDirectory, resolve
from instep.tree.root import beneath
from tests.support.waiting import eventually

TEXT = """# mine
name = "main"   # who
allow = ["10.0.0.0/8"]  # office

[partners.s1]  # first
replicate = true
"""


@pytest.fixture
def node(tmp_path: Path) -> NodeDirectory:
    found = NodeDirectory(tmp_path / "node")
    found.create()
    found.config.write_text(TEXT)
    found.config.chmod(0o600)
    return found


def test_comments_and_order_stay(node: NodeDirectory) -> None:
    assert edits.add_fileset(node, "cat", "/srv/cat", {"ignore": ["logs/"]})
    assert edits.set_fileset(node, "cat", {"settle": "5ms", "archive.keep_last": "3", "to": "s1,s2"})
    assert edits.set_partner(node, "s1", {"data": True})
    assert edits.set_partner(node, "s2", {"address": "10.0.0.2:7443"})
    assert edits.allow_networks(node, ["10.1.0.0/16", "10.0.0.0/8"])
    text = node.config.read_text()
    for kept in ("# mine", "# who", "# office", "# first"):
        assert kept in text
    settings = load(node.path)
    catalog = next(iter(settings.filesets.values()))
    assert (catalog.settle_ms, catalog.archive.keep_last, catalog.to) == (5, 3, ("s1", "s2"))
    assert [str(one) for one in settings.allow] == ["10.0.0.0/8", "10.1.0.0/16"]
    links = {name: row.link for name, row in settings.partners.items()}
    assert [(link.replicate, link.data) for link in links.values()] == [(True, True), (False, False)]
    assert stat.S_IMODE(node.config.stat().st_mode) == 0o600


def test_the_same_edit_again_changes_nothing(node: NodeDirectory) -> None:
    for expected in (True, False):
        assert edits.add_fileset(node, "cat", "/srv/cat", {"ignore": ["logs/"]}) is expected
    for expected in (True, False):
        assert edits.set_fileset(node, "cat", {"settle": "5ms", "ignore": "", "trigger": ""}) is expected
    for expected in (True, False):
        assert edits.remove_fileset(node, "cat") is expected
        assert edits.remove_partner(node, "s1") is expected
        assert edits.disallow_networks(node, list(load(node.path).allow) or []) is expected


def test_another_path_for_a_known_fileset_is_refused(node: NodeDirectory) -> None:
    edits.add_fileset(node, "cat", "/srv/cat", {})
    with pytest.raises(RefusedError) as caught:
        edits.add_fileset(node, "cat", "/srv/other", {})
    assert caught.value.facts == {"ours": {"path": "/srv/cat"}, "wanted": {"path": "/srv/other"}}


def test_accepting_again_may_end_observing(node: NodeDirectory) -> None:
    edits.accept_fileset(node, "cat", "/srv/cat", "s1", {"observe": True})
    assert edits.accept_fileset(node, "cat", "/srv/cat", "s1", {"observe": False})
    assert not next(iter(load(node.path).filesets.values())).observe


def test_what_would_be_wrong_is_not_written(node: NodeDirectory) -> None:
    edits.add_fileset(node, "cat", "/srv/cat", {})
    before = node.config.read_text()
    marked: list[str] = []
    with pytest.raises(ConfigError):
        edits.set_fileset(node, "cat", {"settle": "soon"})
    with pytest.raises(ConfigError):
        edits.add_fileset(node, "dog", "relative", {}, lambda: marked.append("dog"))
    with pytest.raises(UsageError):
        edits.set_fileset(node, "nothing", {"settle": "5ms"})
    assert node.config.read_text() == before
    assert marked == []
    assert sorted(p.name for p in node.path.iterdir()) == ["instep.toml", "pki", "state"]


def test_a_file_that_cannot_be_written_stays_as_it_was(node: NodeDirectory) -> None:
    (node.path / ".writing-instep.toml").mkdir()  # where the new one is made
    with pytest.raises(ResourceError) as caught:
        edits.remove_partner(node, "s1")
    assert caught.value.error_code == "configuration_not_written"
    assert caught.value.reason == f"cannot write {node.config}: Is a directory"
    assert node.config.read_text() == TEXT


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def renamed(path: Path, text: str) -> None:
    new = path.with_name("new~")
    new.write_text(text)
    new.rename(path)


def with_backup(path: Path, text: str) -> None:
    path.rename(path.with_name("old~"))
    path.write_text(text)


SAVES = pytest.mark.parametrize("save", [in_place, renamed, with_backup])


@SAVES
def test_a_save_in_the_middle_of_an_edit_stays(
    node: NodeDirectory, save: Callable[[Path, str], None]
) -> None:
    saved = TEXT + "# saved\n"
    assert edits.edit(node, lambda document: document.update(poll="9s"), lambda: save(node.config, saved))
    assert '"9s"' in node.config.read_text() and node.config.read_text().endswith("# saved\n")
    assert not list(node.path.glob(".writing-*"))


@SAVES
def test_no_save_beside_commands_is_lost(
    node: NodeDirectory, save: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person saves what an editor shows, with one more line each time, without a pause beside five commands, and looks
    after each save: a command that put its own file over it would have taken the line away."""
    monkeypatch.setattr(edits, "LOCK_WAIT_S", 0.2)
    ended = threading.Event()
    lines: list[str] = []
    lost: list[str] = []

    def person() -> None:
        while not ended.is_set() and len(lines) < 2000:
            lines.append(f"# save {len(lines)}\n")
            save(node.config, TEXT + "".join(lines[-20:]))
            try:  # a command may have its own file there for the moment in which it gives this save its name again
                eventually(lambda: node.config.read_text().endswith(lines[-1]), 5, patience_s=5)
            except AssertionError:
                lost.append(lines[-1])

    saving = threading.Thread(target=person)
    saving.start()
    try:
        for number in range(5):
            try:
                edits.allow_networks(node, [f"10.{number}.0.0/16"])
            except ContentionError:  # it may find no pause between two saves
                assert lines
            except ConfigError as error:  # it may look between the two renames of an editor
                if error.error_code != "no_node":
                    raise
    finally:
        ended.set()
        saving.join()
    assert not lost
    assert node.config.read_text().endswith("".join(lines[-20:]))


@SAVES
def test_saves_around_each_exchange_are_not_lost(
    node: NodeDirectory, save: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the newest save keeps the name, however many come while older ones are put back. Method: one save before and
    one after each of the first exchanges, as a person may be timed."""
    saved = [TEXT + f"# save {number}\n" for number in range(6)]
    left = list(saved)
    real = beneath.rename_exchange

    def beside_saves(*names: Any) -> None:
        if left:
            save(node.config, left.pop(0))
        real(*names)
        if left:
            save(node.config, left.pop(0))

    monkeypatch.setattr(file_replacement, "rename_exchange", beside_saves)
    assert edits.edit(node, lambda document: document.update(poll="9s"))
    assert not left
    assert '"9s"' in node.config.read_text()
    assert node.config.read_text().endswith("# save 5\n")


def test_a_file_that_a_program_is_writing_is_left_alone(
    node: NodeDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edits, "LOCK_WAIT_S", 0.04)
    with node.config.open("r+"), pytest.raises(ContentionError, match="another program saves"):
        edits.remove_partner(node, "s1")
    assert node.config.read_text() == TEXT


def test_link_mode_and_line_ends_stay(node: NodeDirectory, tmp_path: Path) -> None:
    kept = tmp_path / "etc.toml"
    kept.write_bytes(TEXT.replace("\n", "\r\n").encode())
    kept.chmod(0o640)
    node.config.unlink()
    node.config.symlink_to(kept)
    assert edits.add_fileset(node, "cat", "/srv/cat", {})
    assert node.config.is_symlink() and stat.S_IMODE(kept.stat().st_mode) == 0o640
    written = kept.read_bytes()
    assert b"/srv/cat" in written and written.count(b"\r\n") == written.count(b"\n")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_a_file_in_another_encoding_is_named(node: NodeDirectory, encoding: str) -> None:
    node.config.write_bytes(TEXT.replace("mine", "m\u00efne").encode(encoding))
    with pytest.raises(ConfigError) as caught:
        edits.remove_partner(node, "s1")
    why = (
        "is not UTF-8"
        if encoding == "latin-1"
        else "begins with a byte order mark; save it as UTF-8 without one"
    )
    assert caught.value.facts["problems"] == [{"line": 1, "key": "", "value": None, "why": why}]


def test_editors_exclude_each_other(node: NodeDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "LOCK_WAIT_S", 0.04)
    other = os.open(node.path, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ContentionError):
            edits.remove_partner(node, "s1")
    finally:
        os.close(other)


def test_a_node_is_made_once(tmp_path: Path) -> None:
    found = NodeDirectory(tmp_path / "n")
    top: dict[str, object] = {"name": "a", "listen": "127.0.0.1:7443", "allow": []}
    assert edits.create(found, top)
    assert not edits.create(found, top)
    with pytest.raises(RefusedError, match="holds node a"):
        edits.create(found, {**top, "name": "b"})
    assert stat.S_IMODE(found.path.stat().st_mode) == 0o700


def test_the_directory_that_a_command_means(tmp_path: Path) -> None:
    assert resolve("/x", {"INSTEP_DIR": "/y"}).path == Path("/x")
    assert resolve(None, {"INSTEP_DIR": "/y"}).path == Path("/y")
    assert resolve(None, {"HOME": str(tmp_path)}).path == tmp_path / ".local/share/instep"
    with pytest.raises(ConfigError, match="no node"):
        NodeDirectory(tmp_path).require()


def test_keys_that_others_can_read_are_refused(node: NodeDirectory) -> None:
    node.require()
    node.pki.chmod(0o755)
    with pytest.raises(ConfigError) as caught:
        node.require()
    assert caught.value.hint == f"chmod 700 {node.pki}"


def test_a_wrong_value_of_a_command_is_not_blamed_on_the_file(node: NodeDirectory) -> None:
    """Goal: ``fileset set settle=soon`` sent the operator into an instep.toml that was right."""
    before = node.config.read_text()
    edits.add_fileset(node, "odd", str(node.path.parent / "odd"), {})
    right = node.config.read_text()
    with pytest.raises(ConfigError) as caught:
        edits.set_fileset(node, "odd", {"settle": "soon", "drft": "keep"})
    assert "stays as it is" in caught.value.reason and "edit" not in str(caught.value.hint)
    problems = caught.value.facts["problems"]
    assert [(one["key"], one["line"]) for one in problems] == [  # type: ignore[attr-defined]
        ("filesets.odd.settle", None), ("filesets.odd.drft", None),
    ]  # fmt: skip
    assert node.config.read_text() == right != before
    node.config.write_text(right + "unknown = 1\n")
    with pytest.raises(ConfigError) as caught:
        edits.set_fileset(node, "odd", {"settle": "soon"})
    assert caught.value.hint is not None and "edit" in caught.value.hint, "the file was wrong before"


@pytest.mark.parametrize("typed", ["data", "metadata", ""])
def test_a_fileset_of_class_secret_keeps_its_class(node: NodeDirectory, typed: str) -> None:
    """Goal: ``fileset set keys class=data`` was "is set", and the next publish sent the keys to all partners."""
    keys = str(node.path.parent / "keys")
    edits.add_fileset(node, "keys", keys, {"class": "data"})
    assert edits.set_fileset(node, "keys", {"class": "secret", "to": "s1"}), "the other way is free"
    before = node.config.read_text()
    for is_dry in (True, False):
        with pytest.raises(RefusedError) as caught:
            edits.set_fileset(node, "keys", {"class": typed}, is_dry=is_dry)
        assert caught.value.error_code == "class_is_secret"
    assert node.config.read_text() == before
    assert edits.set_fileset(node, "keys", {"settle": "5ms"})
    assert edits.edit(node, lambda document: to_follower(document["filesets"]["keys"]))


def to_follower(row: Any) -> None:
    """As ``handover`` leaves the row of a writer: the keys that travel are the new writer's."""
    row["writer"] = "s1"
    for key in ("class", "to", "settle"):
        del row[key]


def test_a_full_disk_leaves_no_file_behind(node: NodeDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    before = node.config.read_text()
    with pytest.raises(ResourceError) as caught:
        edits.edit(node, lambda document: document.update(poll="9s"))
    assert caught.value.error_code == "configuration_not_written"
    assert node.config.read_text() == before and not list(node.path.glob(".writing-*"))


def test_a_folder_that_is_turned_meanwhile_is_not_written(node: NodeDirectory, tmp_path: Path) -> None:
    """Goal: root edits for the node's user, and this user owns the way to the file: with a link put in place of a folder after the
    file was found, the new file was made where the link leads. All steps go through the folder that was found."""
    way, victim = tmp_path / "way", tmp_path / "victim"
    (way / "etc").mkdir(parents=True)
    victim.mkdir()
    (victim / "instep.toml").write_text(TEXT)
    node.config.rename(way / "etc/instep.toml")
    node.config.symlink_to(way / "etc/instep.toml")

    def turn() -> None:
        (way / "etc").rename(way / "was")
        (way / "etc").symlink_to(victim)

    assert edits.edit(node, lambda document: document.update(poll="9s"), turn)
    assert '"9s"' in (way / "was/instep.toml").read_text()
    assert (victim / "instep.toml").read_text() == TEXT and os.listdir(victim) == ["instep.toml"]
