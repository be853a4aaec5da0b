"""The picture of a terminal in the README is a session of real commands with real daemons, and stays one.

``INSTEP_DRAW=1 ./run test tests/cluster/test_session_picture.py`` draws it anew.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from pathlib import Path

from tests.support.fleet import Fleet, Node
from tests.support.terminal_picture import Typed, terminal_picture

PICTURE = Path(__file__).parents[2] / "docs/session.svg"
STYLES = {"styles/road.sld": "<sld/>", "styles/river.sld": "<sld/>", "global.xml": "<global/>"}


def test_the_picture_of_a_session_shows_what_the_commands_print(fleet: Fleet) -> None:
    """Goal: a change, its log, a directory that is emptied, the guard that holds it, and the way back, as printed; only
    the directory, the time of day and the name of the user are replaced."""
    main, tree, session = fleet.node("main"), fleet.tree("main"), list[Typed]()
    me = pwd.getpwuid(os.geteuid()).pw_name

    def printed(node: Node, text: str) -> str:
        text = text.replace(str(fleet.tree(node.name)), "/srv/catalog").replace(
            f"--dir {node.directory} ", ""
        )
        text = re.sub(rf"(?<=\(){me}(?=, )", "ana", text)  # of a generation, and in the column of the log
        text = re.sub(rf"(?<=:\d\d) +{me} *(?= (?:added|changed) )", "      " + "ana".ljust(7), text)
        return re.sub(r"\b\d\d:\d\d\b", "10:35", text)

    def typed(node: Node, *words: str, expect: int = 0) -> None:
        answer = node.run(*words, expect=expect, json=False)
        shown = " ".join(f'"{word}"' if " " in word else word for word in words)
        session.append(Typed(node.name, f"instep {shown}", printed(node, answer.stdout + answer.stderr)))

    for path, text in ({f"data/{number}.csv": "" for number in range(40)} | STYLES).items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    main.init()
    main.start()
    main.run("fileset", "add", "catalog", str(tree), "--publish", "manual")
    for name in ("s1", "s2"):
        fleet.join(name, "--accept", f"catalog={fleet.tree(name)}", accept=False)
    main.run("publish", "catalog", "-m", "first", "--wait")
    (tree / "styles/road.sld").write_text("<sld>wide</sld>")
    typed(main, "publish", "catalog", "-m", "wide roads", "--wait")
    typed(main, "status")
    typed(main, "log", "catalog", "styles/road.sld")
    shutil.rmtree(tree / "data")
    shutil.rmtree(tree / "styles")
    session.append(Typed("main", "rm -r /srv/catalog/data /srv/catalog/styles", ""))
    typed(main, "publish", "catalog", expect=4)
    typed(fleet["s1"], "status")
    typed(main, "restore", "catalog")
    typed(main, "status")
    found = terminal_picture("A session with three nodes: publish, a guard, restore", session)
    if os.environ.get("INSTEP_DRAW"):
        PICTURE.write_text(found)
    assert PICTURE.read_text() == found, "look at the difference; INSTEP_DRAW=1 draws it anew"
