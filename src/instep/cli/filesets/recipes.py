"""``recipe``: ready settings for known applications, from files; and the option ``--recipe`` of other commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

import click

from instep.cli.output import printable, table
from instep.cli.session import Function, Session, command, group
from instep.errors import InstepError, UsageError
from instep.node.recipes.recipe import FOLLOWED, WRITTEN, Recipe
from instep.node.recipes.shelf import PACKAGED, RecipeShelf

recipe = group("recipe", "Ready settings for known applications.")


def parameter_option(function: Function) -> Function:
    return click.option(
        "--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the recipe."
    )(function)


def recipe_options(function: Function) -> Function:
    """``--recipe`` and ``--param``."""
    named = click.option(
        "--recipe", "recipe_name", metavar="RECIPE", help="Ready settings: instep recipe list."
    )
    return named(parameter_option(function))


def recipe_settings(
    session: Session, name: str | None, params: tuple[str, ...], role: str, root: str
) -> dict[str, Any]:
    """The keys that a recipe sets for a fileset in ``root``; none without a recipe."""
    if name is None:
        if params:
            raise UsageError(
                f"--param {params[0]} goes with --recipe", hint="instep recipe list", code="bad_flags"
            )
        return {}
    return _load(session, name).settings(role, _given(params), Path(root))


def _load(session: Session, name: str) -> Recipe:
    node = session.node
    roots: list[Path] = []
    if node.holds_node:
        roots = [one.path for one in session.settings().filesets.values() if not one.is_written_here]
    return RecipeShelf(node).load(name, roots)


def _given(params: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in params:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise UsageError(
                f"--param {one!r} is not NAME=VALUE", hint="--param url=http://localhost/", code="bad_flags"
            )
        if found.get(name, value) != value:
            raise UsageError(f"--param {name} is given twice", code="bad_flags")
        found[name] = value
    return found


def settings_lines(settings: Mapping[str, Any], fileset: str = "NAME") -> list[str]:
    """The settings as they are written to ``instep.toml``."""
    import tomlkit

    from instep.node.config.editing.toml_items import toml_item

    document = tomlkit.document()
    filesets = tomlkit.table(is_super_table=True)
    filesets.add(fileset, toml_item(settings))
    document.add("filesets", filesets)
    return tomlkit.dumps(document).strip().splitlines()


@command("list", parent=recipe, example="instep recipe list")
def recipe_list(session: Session) -> None:
    """The recipes that come with instep, and your own in /etc/instep/recipes or recipes/ in the node directory."""
    rows: list[dict[str, Any]] = []
    for name, files in RecipeShelf(session.node).names().items():
        row: dict[str, Any] = {
            "name": name, "file": str(files[0]), "own": files[0].parent != PACKAGED,
            "instead_of": [str(file) for file in files[1:]], "about": None, "problem": None,
        }  # fmt: skip
        try:
            row["about"] = _load(session, name).about
        except InstepError as error:
            row["problem"] = error.reason
        rows.append(row)
    if not session.gave_json({"recipes": rows}):
        cells = [
            (row["name"], "own" if row["own"] else "", row["about"] or f"not usable: {row['problem']}")
            for row in rows
        ]
        table(cells, ("recipe", "", "for"))


@command(
    "show", parent=recipe, example="instep recipe show geoserver --param auth_file=/etc/instep/geoserver.auth"
)
@click.argument("name")
@parameter_option
def recipe_show(session: Session, name: str, params: tuple[str, ...]) -> None:
    """Show the parameters of a recipe, and its settings: with examples where a parameter is not given."""
    found = _load(session, name)
    given = {**found.examples, **_given(params)}
    settings = {role: found.settings(role, given) for role in (WRITTEN, FOLLOWED)}
    document = {
        "name": name, "file": str(found.file), "own": not found.is_packaged, "about": found.about,
        "note": found.note.strip(),
        "parameters": [
            {"name": p.name, "help": p.help, "kind": p.kind, "required": p.default is None,
             "default": p.default, "example": p.example or None}
            for p in found.parameters
        ],
        "settings": settings,
    }  # fmt: skip
    if not session.gave_json(document):
        print(f"{name}: {printable(found.about)}")
        print(f"  file: {found.file}")
        for line in found.note.strip().splitlines():
            print(f"  {printable(line)}")
        print("\nparameters")
        rows = [
            (
                f"  {p.name}",
                f"needed, e.g. {p.example}" if p.default is None else p.default or "(none)",
                p.help,
            )
            for p in found.parameters
        ]
        table(rows)
        for role, act in ((WRITTEN, "add"), (FOLLOWED, "accept")):
            needed = "".join(f" --param {p.name}={given[p.name]}" for p in found.required(role))
            print(f"\n# instep fileset {act} NAME PATH --recipe {name}{needed}")
            for line in settings_lines(settings[role]):
                print(printable(line))


def with_recipe(ready: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The options count before the recipe; their lists are added to its lists."""
    found = {**ready, **given}
    for key, value in given.items():
        if isinstance(value, list) and isinstance(ready.get(key), list):
            found[key] = [*ready[key], *(item for item in value if item not in ready[key])]
    return found


def recipe_fields(recipe_name: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    return {} if recipe_name is None else {"recipe": recipe_name, "settings": settings}


def with_words(recipe_name: str | None, params: tuple[str, ...]) -> str:
    """The recipe as another command takes it."""
    words = [] if recipe_name is None else ["--recipe", recipe_name]
    for one in params:
        words += ["--param", one]
    return "".join(f" {quote(word)}" for word in words)


def show_recipe(recipe_name: object, name: str, settings: dict[str, Any], verb: str = "set") -> None:
    """Print the settings that are or were written, for the operator to edit."""
    if recipe_name is None:
        return
    print(f"  recipe {recipe_name} {verb}, for you to edit in instep.toml:")
    for line in settings_lines(settings, name):
        print(f"    {printable(line)}" if line else "")
