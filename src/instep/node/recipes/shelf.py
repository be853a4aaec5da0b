"""Where recipes and layouts lie: this node's own, this machine's own, the packaged ones, in that order."""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

import instep.fleet
from instep.core.layout.layout import Layout
from instep.errors import ConfigError, RefusedError, UsageError
from instep.model.counts import sized
from instep.node.directory import NodeDirectory
from instep.node.recipes.layout_file import read_layout
from instep.node.recipes.recipe import Recipe, read_recipe
from instep.tree.root.resolving import resolved

PACKAGED = Path(instep.fleet.__file__).parent / "recipes"
MACHINE = Path("/etc/instep/recipes")
MACHINE_LAYOUTS = MACHINE.with_name("layouts")
FILE_BYTES_MAX = 64 << 10
FILES_MAX = 1_000
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class FileShelf:
    """Data files of one kind that one node can use. The first directory that has a name counts."""

    def __init__(self, what: str, directories: tuple[Path, ...]) -> None:
        self.what = what
        """``recipe`` or ``layout``."""
        self.directories = directories

    def names(self) -> dict[str, tuple[Path, ...]]:
        """Every name with its files, the one that counts first."""
        found: dict[str, tuple[Path, ...]] = {}
        for directory in self.directories:
            try:
                listed = sorted(os.listdir(directory))[:FILES_MAX]
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise ConfigError(
                    f"cannot list {directory}: {error.strerror}", code="unreadable_recipe"
                ) from error
            for name in listed:
                stem = name.removesuffix(".toml")
                if stem != name and _NAME.fullmatch(stem):
                    found[stem] = (*found.get(stem, ()), directory / name)
        return dict(sorted(found.items()))

    def text(self, name: str, roots: Iterable[Path] = ()) -> tuple[str, Path]:
        """The file of that name. ``roots`` are followed filesets: another node wrote every file in them."""
        names = self.names()
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            raise UsageError(
                f"there is no {self.what} {name}" + (f"; did you mean {near[0]}?" if near else ""),
                hint="instep recipe list" if self.what == "recipe" else "instep layout show",
                code="no_recipe",
                name=name,
                looked_in=[str(directory) for directory in self.directories],
            )
        file = names[name][0]
        owners = None if file.parent == self.directories[-1] else (os.geteuid(), 0)
        return _read(self.what, file, owners, roots, self.directories[-2]), file


class RecipeShelf(FileShelf):
    """The recipes that one node can use."""

    def __init__(self, node: NodeDirectory, machine: Path = MACHINE) -> None:
        super().__init__("recipe", (node.path / "recipes", machine, PACKAGED))

    def load(self, name: str, roots: Iterable[Path] = ()) -> Recipe:
        text, file = self.text(name, roots)
        return read_recipe(name, text, file, is_packaged=file.parent == PACKAGED)


class LayoutShelf(FileShelf):
    """The layouts that can be moved here."""

    def __init__(self, node: NodeDirectory, machine: Path = MACHINE_LAYOUTS) -> None:
        super().__init__("layout", (node.path / "layouts", machine, PACKAGED.with_name("layouts")))

    def load(self, name: str, roots: Iterable[Path] = ()) -> Layout:
        text, file = self.text(name, roots)
        return read_layout(name, text, file)


def _read(what: str, file: Path, owners: tuple[int, ...] | None, roots: Iterable[Path], machine: Path) -> str:
    """The text, from one descriptor. It names programs to run, so no other user may be able to write it."""
    real = Path(os.path.realpath(file))
    for root in roots:
        if real.is_relative_to(resolved(root)):
            raise RefusedError(
                f"{what} {file} lies in {root}, which another node writes",
                hint=f"read it, then copy it to {machine}",
                code="foreign_recipe",
                file=str(file),
                root=str(root),
            )
    try:
        with file.open("rb") as opened:
            about = os.fstat(opened.fileno())
            if owners is not None:
                _check_writers(what, file, about, owners)
            raw = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot read {what} {file}: {error.strerror}", code="unreadable_recipe", file=str(file)
        ) from error
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(
            f"{what} {file} is larger than {sized(FILE_BYTES_MAX)}", code="unreadable_recipe", file=str(file)
        )
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{what} {file} line {line} is not UTF-8", code="unreadable_recipe", file=str(file), line=line
        ) from None


def _check_writers(what: str, file: Path, about: os.stat_result, owners: tuple[int, ...]) -> None:
    mode = stat.S_IMODE(about.st_mode)
    if about.st_uid in owners and not mode & (stat.S_IWGRP | stat.S_IWOTH):
        return
    raise RefusedError(
        f"{what} {file} could be written by others: owner {about.st_uid}, mode {mode:04o}; wanted is owner "
        f"{' or '.join(map(str, sorted(set(owners))))}, writable by no other user",
        hint=f"look at it, then: chown {owners[0]} {file}; chmod go-w {file}",
        code="writable_recipe",
        file=str(file),
    )
