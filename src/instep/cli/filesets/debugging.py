"""``debug``: the last events of a machine, written by the daemon and replayed here."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

import click

from instep.api import debugging as api
from instep.cli.output import printable
from instep.cli.session import Session, command, group
from instep.errors import DamagedError, InstepError, UsageError
from instep.model.counts import counted, sized

RECORD_BYTES_MAX = 256 << 20

debug = group("debug", "Record and replay what the state machines of this node did last.")


@command("record", example="instep debug record catalog", parent=debug)
@click.argument("fileset", required=False)
def record(session: Session, fileset: str | None) -> None:
    """Write the last events of a fileset's state machines to files in the node directory."""
    document = session.call(api.DebugRecordCommand(fileset))
    if not session.gave_json(document):
        for one in document.records:
            print(f"{one.machine}: {counted(one.events, 'event')} in {one.file}")
            if one.broken is not None:
                print(f"  it broke: {printable(one.broken)}")
            print(f"  next: instep debug replay {quote(one.file)}")


@command(
    "replay",
    example="instep debug replay /var/lib/instep/records/follow-catalog@main-broken.jsonl",
    parent=debug,
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def replay(session: Session, file: Path) -> None:
    """Run a record through the state machine of this version; nothing is changed.

    Prints each event with the effects that the machine returns. Exit 1 when a step ends otherwise than recorded or
    breaks an invariant; the replay ends there.
    """
    from instep.core.record.replay import load
    from instep.core.record.replay import replay as replayed

    found = load(_read(file))
    steps = list(replayed(found))
    last = steps[-1] if steps else None
    difference, broken = (last.difference, last.broken) if last is not None else (None, None)
    document = {
        "machine": found.name, "version": found.version, "recorded": len(found.steps), "replayed": len(steps),
        "difference": difference, "broken": broken,
        "steps": [
            {"number": one.number, "at_ms": one.at_ms, "event": one.event, "effects": list(one.effects)}
            for one in steps
        ],
    }  # fmt: skip
    if not session.gave_json(document):
        print(
            f"{printable(found.name)}: {counted(len(found.steps), 'event')}, recorded by instep {found.version}"
        )
        for one in steps:
            print(f"{one.number:>4}  {one.at_ms}  {printable(one.event)}")
            for effect in one.effects:
                print(f"        -> {printable(effect)}")
        if difference is not None:
            print(f"the first difference is at event {len(steps)}: {printable(difference)}")
        if broken is not None:
            print(f"event {len(steps)} breaks an invariant: {printable(broken)}")
        if difference is None and broken is None:
            print("every step ended as recorded")
    if difference is not None or broken is not None:
        raise click.exceptions.Exit(InstepError.exit_code)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            text = opened.read(RECORD_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read {file}: {error.strerror}", hint="instep debug record FILESET", code="no_record"
        ) from error
    if len(text) > RECORD_BYTES_MAX:
        raise DamagedError(
            f"{file} is larger than {sized(RECORD_BYTES_MAX)}, the most that a record has",
            hint="give a file from records/ in the node directory, or make one: instep debug record FILESET",
            code="bad_record",
        )
    return text
