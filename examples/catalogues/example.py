"""A network of data catalogues: three organisations without a common certificate authority, over a hub.

``coast`` and ``forest`` keep their own documents and have no link with each other. ``commons`` passes on all metadata
of both, and tables of forest to coast, but no tables to forest. Readers parse every document on every node meanwhile.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from examples.catalogues.documents import Dataset, eml, is_complete, iso, table, title_of, write
from examples.catalogues.readers import Readers
from examples.fleet import Fleet, Node
from examples.play import narrated, play
from examples.servers import Servers
from examples.waiting import Failed, eventually, eventually_seen

HOMES = ("coast", "forest", "commons")
HUB = "commons"
SHAPES = {"coast": iso, "forest": eml, "commons": iso}
RECORDS, DATA = "records", "data"
TABLES = {
    "coast": {"coast", "forest", "commons"},
    "forest": {"forest"},
    "commons": {"coast", "forest", "commons"},
}
"""The homes whose tables each node has, as the rows say."""
EXPECTED = Path(__file__).with_name("expected-table.txt")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class Example:
    """The network and its documents, step by step."""

    def __init__(self, top: Path, given: argparse.Namespace) -> None:
        self.top = top
        self.count: int = given.documents
        self.tell = narrated(given)
        self.fleet = Fleet(top, RECORDS, home=HUB, is_verbose=not given.json)
        self.servers = Servers()
        self.datasets: dict[str, Dataset] = {}
        """What every node is to show, by path."""
        self.others: dict[str, str] = {}
        """Texts of no home's series."""

    def node(self, name: str) -> Node:
        return self.fleet.nodes[name]

    def records(self, name: str) -> Path:
        return self.node(name).tree / RECORDS

    def data(self, name: str) -> Path:
        return self.node(name).tree / DATA

    # The network --------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Three clusters of one node each, two tokens, and the rows."""
        self.fleet.make_clusters(*HOMES)
        for name, rights in (("coast", "--data"), ("forest", "--no-data")):
            self.fleet.link(self.node(name), "--replicate", rights, "--hub")
            self.node(name).run("partner", "set", HUB, "--replicate", "--data", "--introduces")
        for name in HOMES:
            for fileset, path in ((RECORDS, self.records(name)), (DATA, self.data(name))):
                path.mkdir(parents=True)
                of = "metadata" if fileset == RECORDS else "data"
                self.node(name).run(
                    "fileset", "add", fileset, str(path), "--mode", "replicate", "--class", of
                )

    def require_table(self) -> None:
        def printed(node: Node) -> tuple[bool, str]:
            text = node.text("explain", "--table")
            return text == EXPECTED.read_text(), text

        for name in HOMES:
            eventually_seen(partial(printed, self.node(name)), f"{name} to print {EXPECTED.name}", 60)

    # Documents ----------------------------------------------------------------------------------------------

    def save(self, home: str, dataset: Dataset) -> None:
        """What its catalogue does: the table first, then the document that names it."""
        if dataset.table:
            write(self.data(home), f"{home}/{dataset.number}.csv", dataset.table)
        path = f"{home}/{dataset.number}.xml"
        write(self.records(home), path, SHAPES[home](dataset))
        self.datasets[path] = dataset

    def settled(self, more: dict[str, str] | None = None) -> None:
        """Wait until every node shows exactly the documents and the tables that it is to have."""
        self.others |= more or {}
        wanted = {path: SHAPES[each.home](each) for path, each in self.datasets.items()} | self.others

        def are_alike() -> tuple[bool, str]:
            for name in HOMES:
                found = texts_below(self.records(name))
                if found != wanted:
                    return False, f"{name}: {different(found, wanted)}"
                tables = set(texts_below(self.data(name)))
                due = {
                    f"{each.home}/{each.number}.csv"
                    for each in self.datasets.values()
                    if each.table and each.home in TABLES[name]
                }
                if tables != due:
                    return False, f"{name}: tables {sorted(tables ^ due)[:5]}"
            return True, ""

        eventually_seen(are_alike, "all nodes to show the same documents", 90)

    # The play -----------------------------------------------------------------------------------------------

    def play(self) -> dict[str, Any]:
        began = time.monotonic()
        self.tell("1. Three organisations, three clusters, two tokens. What each row lets pass:")
        self.make()
        self.require_table()
        self.tell(EXPECTED.read_text())
        readers = Readers({name: self.records(name) for name in HOMES}, is_complete)
        readers.start()
        try:
            self.write_documents()
            self.edit_elsewhere()
            self.contend()
            self.collide()
            self.withhold()
        finally:
            readers.stop()
        for name in HOMES:
            self.node(name).run("verify", RECORDS, "--fleet", "--deep")
        return {
            "documents": len(self.datasets),
            **readers.report(),
            "untold": [],
            "seconds": round(time.monotonic() - began, 1),
        }

    def write_documents(self) -> None:
        self.tell(
            f"2. {self.count} documents on each node, a table with every fifth; then updates and removals."
        )
        for home in HOMES:
            for number in range(1, self.count + 1):
                rows = table(home, number) if number % 5 == 0 else b""
                self.save(home, Dataset(home, number, f"Series {number} of {home}", table=rows))
        self.settled()
        for home in HOMES:
            for number in range(1, self.count + 1, 10):
                self.save(home, self.datasets[f"{home}/{number}.xml"].revised(f"Series {number}, corrected"))
            gone = f"{home}/{self.count}.xml"
            (self.records(home) / gone).unlink()
            (self.data(home) / f"{home}/{self.count}.csv").unlink(missing_ok=True)
            del self.datasets[gone]
        self.settled()
        for home, path, there in (("forest", "forest/5.csv", True), ("coast", "coast/5.csv", False)):
            other = "coast" if home == "forest" else "forest"
            (found,) = (
                each for each in self.node(home).run("explain", DATA, path)["to"] if each["node"] == other
            )
            if found["gets"] is not there:
                raise Failed(f"{path} at {other}: {found}")
            way = " > ".join(found["via"]) if there else "no"
            self.tell(f"   {path} at {other}: {way}; {found['why']}")

    def edit_elsewhere(self) -> None:
        path, title = "forest/3.xml", "Series 3, worded at coast"
        self.tell(f"3. A curator at coast edits {path}, which lives at forest, over the hub.")
        self.node("coast").run("edit", RECORDS, path, "-m", title, environment=editor(title))
        self.retitled(path, title)
        self.settled()
        (changed, *_) = self.node("forest").run("log", RECORDS, path)["generations"]
        self.tell(f"   at forest: {changed['author']}: {changed['message']}")

    def retitled(self, path: str, title: str) -> None:
        self.datasets[path] = replace(self.datasets[path], title=title)

    def contend(self) -> None:
        path, late = "forest/4.xml", "Series 4, worded too late"
        self.tell(
            f"4. A curator at coast has {path} open; another person wants it; then forest saves it itself."
        )
        opened, go = self.top / "opened", self.top / "go"
        coast, forest = self.node("coast"), self.node("forest")
        with ThreadPoolExecutor(1) as hands:
            edit = hands.submit(
                coast.run, "edit", RECORDS, path, "-m", late, expect=6,
                environment=editor(late, str(opened), str(go)),
            )  # fmt: skip
            try:
                eventually(opened.exists, "the document to be open at coast", 60)
                locked = forest.run("lock", "acquire", RECORDS, path, expect=6)["error"]
                self.tell(f"   {locked['code']}: {locked['reason']}")
                self.save("forest", self.datasets[path].revised("Series 4, saved by forest's own catalogue"))
                self.settled()
            finally:
                go.touch()
            refused = edit.result()["error"]
        self.tell(f"   {refused['code']}: {refused['reason']}")
        kept = Path(refused["facts"]["kept"])
        if title_of(kept.read_text()) != late:
            raise Failed(f"what the curator wrote is not in {kept}")
        shutil.rmtree(kept.parent)
        self.settled()

    def collide(self) -> None:
        self.tell("5. Two homes make one document: one set of names everywhere, and a curator decides.")
        path, titles = "shared/keywords.xml", {"coast": "Keywords by coast", "forest": "Keywords by forest"}
        for home, title in titles.items():
            write(self.records(home), path, iso(Dataset(home, 0, title)))

        def shown() -> tuple[bool, list[dict[str, str]]]:
            found = [
                {name: title_of(text) for name, text in texts_below(self.records(each) / "shared").items()}
                for each in HOMES
            ]
            return found[0] == found[1] == found[2] and set(found[0].values()) == set(titles.values()), found

        (names, *_) = eventually_seen(shown, "both documents under the same names on all nodes", 60)
        self.tell(f"   {', '.join(f'{name}: {title}' for name, title in sorted(names.items()))}")
        (winner,) = (home for home, title in titles.items() if names["keywords.xml"] == title)
        (loser,) = set(titles) - {winner}
        (copy,) = set(names) - {"keywords.xml"}
        both = Dataset(winner, 0, "Keywords by both")
        write(self.records(winner), path, iso(both))
        (self.records(loser) / "shared" / copy).unlink()
        self.settled({path: iso(both)})

    def withhold(self) -> None:
        self.tell(
            "6. A document that forest's disk lost before another node had it: all others arrive, it is named."
        )
        hub, forest = self.node(HUB), self.node("forest")
        forest.run("fileset", "set", RECORDS, "history=off")
        hub.run("stop")
        lost = Dataset("forest", 900, "A long report", abstract="What was measured. " * 20_000)
        self.save("forest", lost)
        for number in range(901, 911):
            self.save("forest", Dataset("forest", number, f"Series {number} of forest"))
        forest.run("publish", RECORDS, "-m", "a campaign")
        forest.run("pause", RECORDS)
        path = "forest/900.xml"
        away = self.top / "away"
        (self.records("forest") / path).rename(away)
        hub.run("start")

        def stands() -> tuple[bool, Any]:
            (line,) = (each for each in hub.lines(RECORDS) if each["origin"] == "forest")
            is_named = (line["standing"], line["code"]) == ("behind", "withheld") and path in line["reason"]
            return is_named and (self.records(HUB) / "forest/910.xml").exists(), line

        line = eventually_seen(stands, "the document to be named at the hub", 60)
        self.tell(f"   {line['code']}: {line['reason']}")
        away.rename(self.records("forest") / path)
        forest.run("resume", RECORDS)
        for name in (HUB, "coast"):  # each tries again by itself once a poll interval
            self.node(name).run("retry", RECORDS)
            eventually((self.records(name) / path).exists, f"the document to be at {name}", 60)
        self.settled()


def editor(*words: str) -> dict[str, str]:
    """The environment of a curator who retitles a document."""
    program = [sys.executable, str(HERE / "curator.py"), *words]
    return {"EDITOR": shlex.join(program), "VISUAL": "", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}


def texts_below(tree: Path) -> dict[str, str]:
    return {
        str(file.relative_to(tree)): file.read_text()
        for file in tree.rglob("*")
        if file.is_file() and not file.relative_to(tree).parts[0].startswith(".instep")
    }


def different(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """A few paths that are not as they are to be."""
    return sorted(path for path in {*found, *wanted} if found.get(path) != wanted.get(path))[:5]


if __name__ == "__main__":
    sys.exit(play(__doc__, Example, documents=20))
