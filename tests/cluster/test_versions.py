"""Nodes of the version before and of this one in one cluster: they work together, and each upgrades in place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.fleet import SOURCE, Fleet, Node, tree_of
from tests.support.old_version import old_source
from tests.support.waiting import eventually

ROLES = ("main", "hub", "leaf")
HOOK = '#!/bin/sh\necho "$INSTEP_GENERATION" >> {log}\n'


class Chain:
    """``main`` writes, ``hub`` follows it, ``leaf`` follows the hub and lists no other node. All run the version
    before."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.words = 0
        for name in ROLES:
            fleet.node(name).source = old_source()
        tree = self.tree
        (tree / "sub").mkdir(parents=True)
        (tree / "word").write_text("first")
        (tree / "sub" / "large").write_bytes(os.urandom(3 << 20))
        (tree / "sub" / "stays").write_text("stays")
        (tree / "link").symlink_to("word")
        fleet.make(0)
        fleet.join("hub")
        fleet.join("leaf", accept=False)
        fleet["leaf"].run("partner", "remove", "main")
        fleet.main.run("partner", "remove", "leaf")
        for name in ROLES[1:]:
            self._hook(name)
        address = f"127.0.0.1:{fleet['hub'].port}"
        self._append("hub", "[partners.leaf]\nreplicate = true\ndata = true\nhub = true\n")
        self._append(
            "leaf", f'[partners.hub]\naddress = "{address}"\nreplicate = false\ndata = false\nhub = false\n'
        )
        eventually(lambda: fleet["leaf"].status()["offers"], describe=fleet["leaf"].log)
        fleet["leaf"].run("fileset", "accept", "data", str(fleet.tree("leaf")))
        self._append("leaf", self._hooks("leaf"))
        self.await_same()

    @property
    def tree(self) -> Path:
        return self.fleet.tree("main")

    def _append(self, name: str, text: str) -> None:
        path = self.fleet[name].directory / "instep.toml"
        path.write_text(f"{path.read_text()}\n{text}")
        self.fleet[name].run("config", "reload")

    def _hook(self, name: str) -> None:
        script = self.fleet.base / f"reload-{name}"
        script.write_text(HOOK.format(log=self.fleet.base / f"log-{name}"))
        script.chmod(0o755)
        if name == "hub":
            self._append("hub", self._hooks("hub"))

    def _hooks(self, name: str) -> str:
        return f'[filesets.data.hooks]\nreload = {{ run = ["{self.fleet.base}/reload-{name}"] }}\n'

    def reloaded(self, name: str) -> list[str]:
        """The generations for which that node's application was reloaded."""
        log = self.fleet.base / f"log-{name}"
        return log.read_text().split() if log.exists() else []

    def await_reload(self, name: str, number: int) -> None:
        eventually(lambda: str(number) in self.reloaded(name), describe=self.fleet[name].log)

    def upgrade(self, name: str) -> None:
        """As an operator does it: this version's command stops the daemon that runs, then starts its own."""
        node = self.fleet[name]
        assert node.source != SOURCE
        node.source = SOURCE
        node.stop()
        node.start()

    def await_same(self, writer: str = "main") -> None:
        fleet = self.fleet
        others = [name for name in ROLES if name != writer]

        def are_same() -> bool:
            wanted = tree_of(fleet.tree(writer))
            return all(tree_of(fleet.tree(name)) == wanted for name in others)

        eventually(are_same, describe=lambda: "\n".join(f"{name}: {fleet[name].line()}" for name in ROLES))

    def word(self, writer: str = "main") -> str:
        """Another word in the writer's tree, which arrives at the others."""
        self.words += 1
        word = f"word {self.words}"
        self.fleet.write({"word": word}, writer)
        self.await_same(writer)
        assert (self.fleet.tree("leaf") / "word").read_text() == word
        return word

    def goes_through(self) -> None:
        """A change, a large change and a way back arrive at both, each with a reload by permit, and all are in step."""
        fleet, tree, large = self.fleet, self.tree, self.tree / "sub" / "large"
        word = self.word()
        number = fleet.publish()
        before = tree_of(tree)
        self.await_same()
        for name in ROLES[1:]:
            self.await_reload(name, number)
        with large.open("r+b") as file:
            file.seek(1_000_000)
            file.write(os.urandom(5_000))
        (tree / "link").unlink()
        (tree / "new").mkdir()
        (tree / "new" / "file").write_text(word)
        assert fleet.publish() > number
        self.await_same()
        fleet.main.run("rollback", "data", str(number))
        assert tree_of(tree, with_times=False) == {path: what[:-1] for path, what in before.items()}
        self.await_same()
        self.await_told()

    def await_told(self) -> None:
        """Every node stands in step with the writer's head, and the writer knows."""
        fleet = self.fleet

        def are_there() -> bool:
            number = fleet.head()
            lines = [fleet[name].line() for name in ROLES]
            return all((each["standing"], each["live"]["number"]) == ("in_step", number) for each in lines)

        eventually(are_there, describe=lambda: f"all live with {fleet.main.line()}")
        eventually(self._are_told, describe=lambda: f"hub and leaf in step in {fleet.main.line()}")

    def _are_told(self) -> bool:
        rows = {row["name"]: row["standing"] for row in self.fleet.main.line()["partners"]}
        return rows == {"hub": "in_step", "leaf": "in_step"}

    def handed_over_and_back(self) -> None:
        main, hub = self.fleet.main, self.fleet["hub"]
        main.run("handover", "data", "hub", "--timeout", "90s")
        self.word("hub")
        main.run(
            "partner", "set", "leaf", "--replicate", "--data"
        )  # a writer lists the nodes behind a hub, too
        hub.run("handover", "data", "main", "--timeout", "90s")
        self.word()
        assert main.await_standing("in_step")["head"]["epoch"] >= 3


def _numbers(node: Node) -> list[int]:
    return [row["number"] for row in node.run("log", "data").json["generations"]]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "order",
    [("leaf", "hub", "main"), ("main", "leaf", "hub"), ("hub", "main", "leaf")],
    ids=lambda order: "-".join(order),
)
def test_a_chain_is_upgraded_node_by_node(fleet: Fleet, order: tuple[str, str, str]) -> None:
    """Goal: each mixture of the two versions in a chain publishes, rolls back, rolls out and hands over, and a node
    that is upgraded in place goes on with its state, journal, history, archive and keys. Method: three orders of
    upgrading, which have all six mixtures and an upgrade in every role."""
    chain = Chain(fleet)
    chain.goes_through()
    first = min(_numbers(fleet.main))
    for step, name in enumerate(order):
        live = fleet[name].line()["head"]
        chain.upgrade(name)
        line = fleet[name].await_standing("in_step")
        assert line["head"] == live, "nothing is published or taken back by an upgrade"
        chain.goes_through()
        if step == 1:
            chain.handed_over_and_back()
    assert min(_numbers(fleet.main)) == first, "the generations of the version before are in the log"
    fleet.main.run("rollback", "data", str(first))
    assert (chain.tree / "word").read_text() == "first"
    chain.await_same()
    chain.await_told()
    assert fleet.main.run("verify", "data", "--fleet", "--deep").json["identical"]
    for name in ROLES[1:]:
        kept = fleet[name].run("archive", "list", "data").json["items"]
        assert kept, f"{name} lost the archive that the version before began"


@pytest.mark.timeout(600)
def test_a_journal_of_the_version_before_is_finished(fleet: Fleet) -> None:
    """Goal: a partner that was killed in the middle of a switch is upgraded and goes on. Method: the version before
    dies at the third step, this version starts on what it left."""
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    for number in range(6):
        (tree / f"f{number}").write_text("before")
    s1 = fleet.node("s1")
    s1.source = old_source()
    fleet.make(1)
    fleet.wait()
    s1.stop()
    s1.environment["INSTEP_FAILPOINT"] = "switch.step.before:3=kill"
    s1.start()
    fleet.write({f"f{number}": "after" for number in range(6)})
    number = fleet.publish()
    s1.await_death()
    words = [(fleet.tree("s1") / f"f{number}").read_text() for number in range(6)]
    assert sorted(set(words)) == ["after", "before"], "it died between two steps"
    del s1.environment["INSTEP_FAILPOINT"]
    s1.source = SOURCE
    s1.start()
    assert fleet.wait("--generation", str(number))["reached"]
    fleet.assert_same("s1")


@pytest.mark.timeout(600)
def test_the_way_back_to_the_version_before(fleet: Fleet) -> None:
    """Goal: a partner, then the writer, go back to the version before on the directories that this version wrote:
    they go on in step. Method: both are used by this version, which leaves history, archive, journals and facts."""
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "word").write_text("first")
    fleet.make(1)
    first = fleet.publish()
    for number in range(3):
        fleet.write({"word": f"word {number}", f"new{number}": f"new {number}"})
        fleet.publish()
    (tree / "new1").unlink()
    fleet.main.run("rollback", "data", str(first))
    fleet.wait()
    for name in ("s1", "main"):
        node = fleet[name]
        live = node.line()["head"]
        node.stop()
        config = node.directory / "instep.toml"
        lines = config.read_text().splitlines(keepends=True)
        config.write_text("".join(line for line in lines if not line.startswith("owners =")))  # a newer key
        for database in (node.directory / "state").glob("node.db*"):
            database.unlink()  # of a newer form; it is built anew
        node.source = old_source()
        node.start()
        assert node.await_standing("in_step")["head"] == live
        (tree / "word").write_text(f"{name} runs the version before")
        number = fleet.publish()
        assert fleet.wait("--generation", str(number))["reached"]
        fleet.assert_same("s1")
