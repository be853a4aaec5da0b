"""The view of a whole tree, and the recipes' own tests on it with the real nginx, Apache and MapServer."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from instep.errors import ResourceError
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import Change
from instep.node.directory import NodeDirectory
from instep.node.recipes.shelf import RecipeShelf
from instep.node.trees import hook_views as module
from instep.node.trees.hook_views import tree_view
from instep.tree.journal.plan import object_key


def entry(path: str, what: str | None) -> Entry | None:
    if what is None:
        return None
    kind = Kind.DIR if what == "dir" else Kind.FILE
    return Entry(
        path.encode(), kind, 0o644, len(what), 0, Digest(what.encode() if kind is Kind.FILE else b""), 0
    )


class World:
    """A live tree and a stage; ``change`` says what a generation does to a path."""

    def __init__(self, base: Path) -> None:
        self.root, self.stage = base / "live", base / "stage"
        (self.stage / "o").mkdir(parents=True)
        self.root.mkdir()
        self.changes: list[Change] = []

    def live(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def change(self, path: str, old: str | None, new: str | None, *, staged: bool = True) -> None:
        before, after = entry(path, old), entry(path, new)
        self.changes.append(Change(path.encode(), before, after, Digest(b""), 0))
        if staged and new is not None:
            at = self.stage / "o" / object_key(path.encode()).decode()
            at.mkdir() if new == "dir" else at.write_text(new)

    def view(self) -> Any:
        return tree_view(os.fsencode(self.root), os.fsencode(self.stage), self.changes)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_view_is_the_tree_as_it_will_be(world: World, tmp_path: Path) -> None:
    """Goal: changed, added, removed, moved, mode-only and ignored paths, links into the root, and a name that turned from
    directory to file; and nothing is laid or removed through a link that leads out of the tree."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "old").write_text("not ours")
    for path in ("same", "changed", "gone/a", "moved/a", "mode", "key.ignored", "turns/a", "left/local"):
        world.live(path, path)
    (world.root / "abs").symlink_to(world.root / "same")
    (world.root / "drift").symlink_to(outside)  # was a directory in the generation
    (world.root / "in").mkdir()
    (world.root / "in" / "drift").symlink_to(outside)
    world.change("changed", "changed", "new")
    world.change("added/b", None, "b")
    world.change("added/far/down/c", None, "c")
    world.change("gone", "dir", None)
    world.change("gone/a", "gone/a", None)
    world.change("left", "dir", None)
    world.change("moved", "dir", None)
    world.change("moved/a", "moved/a", None)
    world.change("there", None, "dir", staged=False)
    world.change("there/a", None, "moved/a", staged=False)
    world.change("mode", "mode", "mode", staged=False)
    world.change("turns", "dir", "file now")
    world.change("drift/new", None, "new")
    world.change("drift/old", "old", None)
    world.change("in/drift/old", "old", None)
    with world.view() as view:
        found = {
            str(path.relative_to(view)): path.read_text()
            for path in sorted(Path(view).rglob("*"))
            if path.is_file()
        }
        assert os.readlink(f"{view}/abs") == f"{view}/same"
    assert not Path(view).exists()
    assert found == {
        "abs": "same", "added/b": "b", "added/far/down/c": "c", "changed": "new", "drift/new": "new",
        "key.ignored": "key.ignored", "left/local": "left/local", "mode": "mode", "same": "same", "there/a": "moved/a", "turns": "file now",
    }  # fmt: skip
    assert sorted(os.listdir(outside)) == ["old"]
    assert (world.root / "changed").read_text() == "changed"


def test_a_view_is_bounded_and_never_guesses(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.change("lost", None, "lost", staged=False)
    with pytest.raises(ResourceError) as caught, world.view():
        pass
    assert caught.value.error_code == "view_incomplete"
    monkeypatch.setattr(module, "VIEW_MAX", 2)
    for name in "abc":
        world.live(name, name)
    with pytest.raises(ResourceError) as caught, world.view():
        pass
    assert caught.value.error_code == "view_too_large"


def validated(world: World, recipe: str, **params: str) -> tuple[int, str]:
    """Run the recipe's validate hook as a partner would: the program, its arguments, its variables."""
    found = RecipeShelf(NodeDirectory(world.root.parent / "node")).load(recipe)
    hook = found.settings("partner", {**found.examples, **params}, world.root)["hooks"]["validate"]
    with world.view() as view:
        done = subprocess.run(
            hook["run"], capture_output=True, text=True, timeout=60, check=False, cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "INSTEP_PATH": str(world.root), "INSTEP_TREE": view},
        )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="nginx is not installed")
def test_nginx_tests_the_staged_tree_and_not_the_live_one(world: World, tmp_path: Path) -> None:
    """Goal: a broken file behind an absolute include, reached over an absolute link as Debian has it, is found in the
    stage; and the live file that is broken today does not stop its own mending. Nothing outside is written."""
    conf = f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; include {world.root}/on/*; }}"
    outside = tmp_path / "outside.conf"
    outside.write_text(f"# speaks of {world.root}/ and stays as it is\n")
    world.live("nginx.conf", conf)
    world.live("available/site", "server { listen 127.0.0.1:1; broken today }")
    (world.root / "on").mkdir()
    (world.root / "on" / "site").symlink_to(world.root / "available/site")
    (world.root / "outside").symlink_to(outside)
    (world.root / "folder").symlink_to(tmp_path)
    assert validated(world, "nginx")[0] != 0
    world.change("available/site", "old", "server { listen 127.0.0.1:1; return 200; }")
    assert validated(world, "nginx") == (0, "")
    world.changes.clear()
    world.live("available/site", "server { listen 127.0.0.1:1; return 200; }")
    world.change("on/broken", None, "server { lisen 127.0.0.1:1; }")
    code, said = validated(world, "nginx")
    assert code != 0
    assert 'unknown directive "lisen"' in said
    assert "speaks of " + str(world.root) in outside.read_text()
    assert str(world.root) in (world.root / "nginx.conf").read_text()


@pytest.mark.skipif(shutil.which("apachectl", path="/usr/sbin") is None, reason="apache2 is not installed")
def test_apache_tests_the_staged_tree_and_not_the_live_one(world: World, tmp_path: Path) -> None:
    modules = "/usr/lib/apache2/modules"
    envvars = (
        f"export APACHE_RUN_DIR={tmp_path}/run APACHE_LOCK_DIR={tmp_path}/run APACHE_RUN_USER=$(id -un)\n"
    )
    (tmp_path / "run" / "socks").mkdir(parents=True)
    world.live("envvars", envvars)
    world.live(
        "apache2.conf",
        f"LoadModule mpm_event_module {modules}/mod_mpm_event.so\nLoadModule authz_core_module {modules}/mod_authz_core.so\n"
        f"ServerName localhost\nListen 127.0.0.1:1\nPidFile {tmp_path}/pid\nErrorLog /dev/stderr\nInclude {world.root}/on/*.conf\n",
    )
    world.live("on/a.conf", "# nothing\n")
    code, said = validated(world, "apache")
    assert code == 0, said
    world.change("on/a.conf", "old", "NoSuchDirective on\n")
    code, said = validated(world, "apache")
    assert code != 0
    assert "NoSuchDirective" in said


@pytest.mark.skipif(shutil.which("map2img") is None, reason="mapserver-bin is not installed")
def test_mapserver_draws_the_staged_map(world: World, tmp_path: Path) -> None:
    """Goal: a mapfile is drawn with the staged part that it includes; one that names what is not there is refused."""
    config = tmp_path / "mapserver.conf"
    config.write_text('CONFIG\n ENV\n  MS_MAP_PATTERN "."\n END\nEND\n')
    world.live("city.map", 'MAP\n NAME "city"\n EXTENT 0 0 9 9\n SIZE 20 20\n INCLUDE "layer.inc"\nEND\n')
    layer = "LAYER\n NAME a\n TYPE POLYGON\n STATUS DEFAULT\n FEATURE\n POINTS 1 1 8 1 8 8 1 1 END\n END\n CLASS\n STYLE\n COLOR {}\n END\n END\nEND\n"
    world.live("layer.inc", "broken today")
    world.change("layer.inc", "old", layer.format("1 2 3"))
    params = {"mapfile": "city.map", "config": str(config), "map2img": str(shutil.which("map2img"))}
    assert validated(world, "mapserver", **params) == (0, "")
    world.changes.clear()
    world.change("layer.inc", "old", layer.format("red or so"))
    code, said = validated(world, "mapserver", **params)
    assert code != 0
    assert "city.map cannot be drawn" in said
