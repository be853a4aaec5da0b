"""``fileset``: the directories that are kept in step here, as writer or as follower."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import click
from msgspec import UNSET
from msgspec.structs import replace

from instep.api import filesets as api
from instep.api.command import as_json
from instep.cli.completion import complete_setting
from instep.cli.filesets.external import external
from instep.cli.filesets.forgetting import fileset_remove, forget_line
from instep.cli.filesets.mounting import mount_lines
from instep.cli.filesets.recipes import (
    parameter_option,
    recipe_fields,
    recipe_options,
    recipe_settings,
    show_recipe,
    with_recipe,
    with_words,
)
from instep.cli.filesets.roots import (
    all_wrong,
    check_root,
    foreign_owners,
    how_to_invite,
    mark_root,
    require_no_writer,
    root_of,
    words_of_root,
)
from instep.cli.filesets.status_text import not_dialled, taking_part
from instep.cli.output import printable, table
from instep.cli.session import Session, command, daemon_word, group, later, timeout_option
from instep.errors import InstepError, RefusedError, UsageError
from instep.model.definition import Preserve
from instep.model.ids import fileset_name
from instep.node.config.editing import edits
from instep.node.config.filesets import FilesetSettings
from instep.node.recipes.recipe import FOLLOWED, WRITTEN

fileset = group("fileset", "The directories that are kept in step.")
for one in (external, fileset_remove, forget_line, mount_lines):
    fileset.add_command(one)


@command(
    "add",
    parent=fileset,
    example="instep fileset add catalog /srv/catalog --ignore logs/ --ignore '*.tmp' --to s1",
)
@click.argument("name")
@click.argument("path")
@click.option(
    "--mode", type=click.Choice(["mirror", "replicate", "shared"]), default="mirror", show_default=True
)
@click.option(
    "--class", "fileset_class", type=click.Choice(["metadata", "data", "secret"]), help="Default: metadata."
)
@recipe_options
@click.option("--publish", type=click.Choice(["auto", "manual"]), help="Default: auto.")
@click.option("--settle", metavar="DURATION", help="Quiet time before an automatic publish.")
@click.option("--trigger", metavar="RELPATH", help="A file whose change publishes at once.")
@click.option(
    "--ignore", multiple=True, metavar="PATTERN", help="Gitignore pattern, never carried or touched."
)
@click.option("--include", multiple=True, metavar="PATTERN", help="Carry only these.")
@click.option("--preserve", metavar="WHAT,...", help="owner, xattr, acl, hardlinks, sparse.")
@click.option("--gate", multiple=True, metavar="FACT", help="A fact that must agree before an apply.")
@click.option("--to", multiple=True, metavar="NODE", help="Offer it to these partners only.")
def fileset_add(
    session: Session,
    name: str,
    path: str,
    mode: str,
    fileset_class: str | None,
    recipe_name: str | None,
    params: tuple[str, ...],
    publish: str | None,
    settle: str | None,
    trigger: str | None,
    ignore: tuple[str, ...],
    include: tuple[str, ...],
    preserve: str | None,
    gate: tuple[str, ...],
    to: tuple[str, ...],
) -> None:
    """Keep a directory in step, written on this node; names the partners that it is offered to.

    --recipe writes the settings of a recipe and shows them; other options of this command count before it, and their
    lists are added to its lists.
    """
    if mode == "shared":
        later("mode shared")
    chosen = fileset_name(name)
    settings = session.settings()
    root = root_of(path)
    given = {
        "mode": mode if mode != "mirror" else None,
        "class": fileset_class, "publish": publish, "settle": settle, "trigger": trigger,
        "ignore": list(ignore), "include": list(include), "to": list(to), "gates": list(gate),
        "preserve": None if preserve is None else [item.strip() for item in preserve.split(",")],
    }  # fmt: skip
    ready = recipe_settings(session, recipe_name, params, WRITTEN, root)
    given_keys = with_recipe(ready, {key: value for key, value in given.items() if value})
    prepare = None
    if chosen not in settings.filesets:
        if mode == "mirror" and preserve is None and foreign_owners(session, Path(root)).names:
            given_keys.setdefault("preserve", [Preserve.OWNER.value])
        require_no_writer(session, chosen, Path(root), mode)
        try:
            check_root(session, chosen, Path(root))
        except RefusedError as error:
            raise all_wrong(session, name, root, given_keys, error) from None
        prepare = partial(mark_root, session, chosen, Path(root))
    changed = edits.add_fileset(session.node, name, root, given_keys, prepare)
    reloaded = session.reload() if changed else None
    settings = session.settings()
    offered, reasons = _offered(settings, chosen)
    warnings, owners = words_of_root(session, settings.filesets[chosen])
    warnings += not_dialled(settings, mode, offered)
    document: dict[str, Any] = {
        "fileset": name, "path": root, "writer": settings.name, "changed": changed, "offered_to": offered,
        "not_offered_to": reasons, "daemon": daemon_word(changed, reloaded),
        **recipe_fields(recipe_name, given_keys), "warnings": warnings,
    }  # fmt: skip
    if not session.gave_json(document):
        print(f"{name} is {root}, written here" + ("" if changed else " (was there already)"))
        show_recipe(recipe_name, name, given_keys)
        for line in (*(f"warning: {each}" for each in warnings), *owners):
            print(f"  {printable(line)}")
        print(f"  offered to {', '.join(offered) or 'no partner yet'}")
        for partner, why in reasons.items():
            print(f"  not to {partner}: {why}")
        if changed and reloaded is None:
            print(f"  next: instep --dir {session.node.path} start")
        for partner in offered:
            print(f"  next, on {partner}: {taking_part(name, mode)}{with_words(recipe_name, params)}")
        if not offered and not reasons:
            print(f"  next: {how_to_invite(session, settings)}")


def _offered(settings: Any, name: Any) -> tuple[list[str], dict[str, str]]:
    """The partners that may have it, and why the others may not."""
    chosen = settings.filesets[name]
    offered: list[str] = []
    reasons: dict[str, str] = {}
    for partner, row in settings.partners.items():
        if not chosen.offers_to(partner):
            reasons[partner] = "`to` does not name it"
        elif not row.link.replicate:
            reasons[partner] = "its flag replicate is off"
        elif chosen.definition is None or not row.link.lets(chosen.definition.fileset_class, own_line=True):
            reasons[partner] = "its flag data is off and the fileset's class is data"
        else:
            offered.append(partner)
    return offered, reasons


@command("accept", parent=fileset, example="instep fileset accept catalog /srv/catalog --seed")
@click.argument("name")
@click.argument("path")
@click.option("--from", "home", metavar="HOME", help="The node that writes it, when several offer that name.")
@click.option("--replace", is_flag=True, help="Archive the files that are there.")
@click.option("--seed", is_flag=True, help="Use equal files that are there, archive the rest.")
@click.option("--observe", is_flag=True, help="Compare and report, never write.")
@click.option("--shared", is_flag=True, help="Other nodes mount this directory for it, too.")
@click.option("--drift", type=click.Choice(["revert", "keep", "offer"]), help="Default: revert.")
@click.option("--switch", type=click.Choice(["inplace", "exchange"]), help="Default: inplace.")
@click.option(
    "--carry", multiple=True, metavar="RELPATH", help="With exchange: an ignored path that moves along."
)
@click.option(
    "--without", metavar="WHAT,...", help="Metadata that this file system cannot keep: owner, xattr, acl ..."
)
@recipe_options
@click.option("--dry-run", is_flag=True, help="Only compare, and show the difference.")
@timeout_option("10m")
def fileset_accept(
    session: Session,
    name: str,
    path: str,
    home: str | None,
    replace: bool,
    seed: bool,
    observe: bool,
    shared: bool,
    drift: str | None,
    switch: str | None,
    carry: tuple[str, ...],
    without: str | None,
    recipe_name: str | None,
    params: tuple[str, ...],
    dry_run: bool,
    timeout_ms: int,
) -> None:
    """Follow a fileset that another node writes, in a directory of this node.

    A directory that is not empty and differs is refused with the difference in numbers (exit 4), unless
    --replace, --seed or --observe says what to do.
    """
    settings = session.settings()
    flags = {"replace": replace, "seed": seed, "observe": observe}
    chosen = [flag for flag, is_given in flags.items() if is_given]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other", code="bad_flags")
    how = chosen[0] if chosen else None
    root = root_of(path)
    ready = recipe_settings(session, recipe_name, params, FOLLOWED, root)
    typed = {"from": home, "mode": how, "drift": drift, "switch": switch, "carry": carry, "without": without}
    kind = api.FilesetCheckCommand if dry_run else api.FilesetAcceptCommand
    asked = kind(
        name, root, home, how, drift=drift, switch=switch, carry=carry,
        without=tuple(item.strip() for item in without.split(",")) if without else (),
        settings={} if dry_run else {key: value for key, value in ready.items() if not typed.get(key)},
        shared=shared,
    )  # fmt: skip
    if home is not None and home == settings.name:
        raise UsageError(
            f"{home} is this node", hint=f"instep fileset add {name} {quote(path)}", code="own_name"
        )
    try:
        told = session.call(asked, timeout_ms / 1000)
    except InstepError as error:
        error.hint = _keeping(error.hint, with_words(recipe_name, params))
        raise
    if not session.gave_json({**as_json(told), **recipe_fields(recipe_name, ready)}):
        if told.only_here is not UNSET:
            print(f"  only here: {told.only_here}")
            print(f"  only there: {told.only_there}")
            print(f"  differing: {told.differing}")
        if not dry_run:
            show_recipe(recipe_name, name, ready)
            state = "follows" if told.changed else "follows already"
            print(f"{name} in {told.path} {state} {told.writer}")
            for warning in told.warnings or ():
                print(f"  warning: {printable(warning)}")
        _show_why(told)


def _keeping(hint: str | None, words: str) -> str | None:
    """A hint that says to accept again, with the recipe that was typed."""
    again = r"fileset accept \S+ (?:'[^']*'|\S+)(?: --[a-z]+)*"
    return None if hint is None else re.sub(again, lambda found: found[0] + words, hint)


def _show_why(told: api.AcceptedDocument) -> None:
    """Why nothing was done, or would be, and what to do about it."""
    if told.why:
        print(f"  {printable(told.why)}")
        for step in told.next or ():
            print(f"  next: {printable(step)}")


@command(
    "set", parent=fileset, example="instep fileset set catalog settle=5ms drift=keep archive.keep_last=20"
)
@click.argument("name")
@click.argument(
    "assignments", nargs=-1, required=True, metavar="KEY=VALUE...", shell_complete=complete_setting
)
@parameter_option
@click.option("--dry-run", is_flag=True, help="Only check, and show what a recipe would set.")
@click.option("--yes", is_flag=True, help="Do not ask on a terminal before a recipe is written.")
def fileset_set(
    session: Session,
    name: str,
    assignments: tuple[str, ...],
    params: tuple[str, ...],
    dry_run: bool,
    yes: bool,
) -> None:
    """Change settings of a fileset; an empty value goes back to the default.

    recipe=RECIPE writes the settings of a recipe to a fileset that exists, and shows them first.
    """
    wrong = [one for one in assignments if "=" not in one]
    if wrong:
        raise UsageError(
            f"{wrong[0]!r} is not KEY=VALUE", hint=f"instep fileset set {name} settle=5ms", code="bad_key"
        )
    pairs = {key.strip(): value.strip() for key, value in (one.split("=", 1) for one in assignments)}
    chosen = pairs.pop("recipe", None)
    ready = _ready_for(session, name, chosen, params)
    if chosen and not session.is_json:
        show_recipe(chosen, name, ready, "would set" if dry_run else "sets")
    would = edits.set_fileset(session.node, name, pairs, ready, is_dry=True)
    if dry_run:
        document = {"fileset": name, "changed": would, "dry_run": True, **recipe_fields(chosen, ready)}
        session.show(document, f"{name} would be set" if would else f"{name}: nothing to change")
        return
    is_asked = would and bool(chosen) and not session.is_json and not yes and sys.stdin.isatty()
    if is_asked and not click.confirm("Write them?", err=True):
        raise RefusedError("nothing was changed", code="declined")
    changed = edits.set_fileset(session.node, name, pairs, ready)
    session.show_change({"fileset": name, **recipe_fields(chosen, ready)}, changed, f"{name} is set")


def _ready_for(session: Session, name: str, chosen: str | None, params: tuple[str, ...]) -> dict[str, Any]:
    """The settings of a recipe for a fileset that exists."""
    found = session.settings().filesets.get(name)  # type: ignore[call-overload]
    role = WRITTEN if found is None or found.is_written_here else FOLLOWED
    return recipe_settings(session, chosen, params, role, str(found.path if found is not None else ""))


@command("adopt", parent=fileset, example="instep fileset adopt catalog /srv/catalog --dry-run")
@click.argument("name")
@click.argument("path")
@click.option("--empty", is_flag=True, help="Although nothing of the fileset is left there: the disk is new.")
@click.option("--dry-run", is_flag=True, help="Only compare, and show what stands against it.")
def fileset_adopt(session: Session, name: str, path: str, empty: bool, dry_run: bool) -> None:
    """Write the marker of a fileset again where it was lost, in the directory that the settings name.

    A directory that holds nothing of the generation that it should hold is refused: its disk may not be mounted.
    """
    asked = api.FilesetAdoptCommand(name, path=root_of(path), dry_run=dry_run, empty=empty)
    told = session.call(asked, 600.0)
    if not session.gave_json(told):
        print(f"  only here: {told.only_here}")
        print(f"  only in generation {told.generation or 0}: {told.only_there}")
        print(f"  differing: {told.differing}")
        state = "is adopted" if told.changed else "would be adopted"
        print(f"{name} in {told.path} {'stays as it is' if told.why else state}")
        _show_why(told)


@command("list", parent=fileset, example="instep fileset list --json")
def fileset_list(session: Session) -> None:
    """The filesets here and the ones that partners offer."""
    document = session.call_or(lambda: _offline_list(session), api.FilesetListCommand())
    if not session.gave_json(document):
        rows = [
            (f.name, f.path, "here" if f.is_written_here else f.writer, f.fileset_class or "-")
            for f in document.filesets
        ]
        table(rows, ("fileset", "path", "written", "class"))
        for offer in document.offers or ():
            print(f"offered by {offer.writer}: {taking_part(offer.name, offer.mode)}")


def _offline_list(session: Session) -> api.FilesetsDocument:
    rows = tuple(_offline_row(one) for one in session.settings().filesets.values())
    return api.FilesetsDocument(daemon="stopped", filesets=rows, offers=())


def _offline_row(one: FilesetSettings) -> api.FilesetDocument:
    rules = one.definition
    return api.FilesetDocument(
        name=one.name, path=str(one.path), writer=one.writer, is_written_here=one.is_written_here,
        mode="mirror" if rules is None else rules.mode.value,
        fileset_class=None if rules is None else rules.fileset_class.value,
        observe=one.observe, drift=one.drift,
    )  # fmt: skip


@command("show", parent=fileset, example="instep fileset show catalog")
@click.argument("name")
def fileset_show(session: Session, name: str) -> None:
    """All that this node knows about one fileset: settings, rules, place, sizes."""
    chosen = fileset_name(name)

    def offline() -> api.FilesetDocument:
        found = session.settings().filesets.get(chosen)
        if found is None:
            raise UsageError(
                f"there is no fileset {name} here", hint="instep fileset list", code="no_fileset"
            )
        return replace(_offline_row(found), daemon="stopped")

    document = session.call_or(offline, api.FilesetShowCommand(name))
    if not session.gave_json(document):
        for key, value in as_json(document).items():
            if value not in (None, (), [], {}):
                told = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
                print(f"{key.replace('_', ' ')}: {printable(told)}")
