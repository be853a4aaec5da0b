"""Three real daemons of one cluster, each a home of one fileset: files that are made on any arrive at all, and stay its own."""

from __future__ import annotations

from pathlib import Path

from tests.support.fleet import Fleet
from tests.support.replicas import texts
from tests.support.waiting import eventually

HOMES = ("main", "s1", "s2")


def _made(fleet: Fleet) -> None:
    """Each lists the others with all rights, and has the fileset in mode replicate."""
    main = fleet.node("main")
    main.init()
    fleet.set_poll(main, "1s")
    main.start()
    for name in HOMES[1:]:
        fleet.join(name, accept=False)
    fleet.acquaint(*HOMES)
    for name in HOMES:
        fleet.tree(name).mkdir(parents=True, exist_ok=True)
        for other in HOMES:
            if other != name:
                at = f"127.0.0.1:{fleet[other].port}"
                fleet[name].run("partner", "set", other, "--replicate", "--data", "--address", at)
        fleet[name].run(
            "fileset", "add", "data", str(fleet.tree(name)), "--mode", "replicate", "--settle", "20ms"
        )


def _alike(fleet: Fleet, holding: dict[str, str]) -> None:
    def standings() -> dict[str, set[str]]:
        return {
            name: {line["standing"] for line in node.status()["filesets"][0]["lines"]}
            for name, node in fleet.nodes.items()
        }

    def are() -> bool:
        if any(texts(fleet.tree(name)) != holding for name in HOMES):
            return False
        return all(found == {"in_step"} for found in standings().values())

    eventually(
        are,
        60.0,
        describe=lambda: f"{ {name: texts(fleet.tree(name)) for name in HOMES} } {standings()}",
    )


def _put(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def test_three_homes_of_one_fileset(fleet: Fleet) -> None:
    """Inserts, updates, deletes and an edit elsewhere on each; then one is killed, loses its state and comes back."""
    _made(fleet)
    for name in HOMES:
        _put(fleet.tree(name), {f"{name}/{number}.xml": f"{name} {number}" for number in range(4)})
    expected = {f"{name}/{number}.xml": f"{name} {number}" for name in HOMES for number in range(4)}
    _alike(fleet, expected)
    for name, other in zip(HOMES, (*HOMES[1:], HOMES[0]), strict=True):
        _put(
            fleet.tree(name), {f"{name}/0.xml": "updated", f"{name}/new/9.xml": "new", f"{other}/1.xml": name}
        )
        (fleet.tree(name) / name / "2.xml").unlink()
        (fleet.tree(name) / other / "3.xml").unlink()
        expected |= {f"{name}/0.xml": "updated", f"{name}/new/9.xml": "new", f"{other}/1.xml": name}
    for name in HOMES:
        del expected[f"{name}/2.xml"], expected[f"{name}/3.xml"]
    _alike(fleet, expected)
    heads = {name: fleet.head(name) for name in HOMES}
    node = fleet["s2"]
    node.kill()
    for state in (node.directory / "state").glob("node.db*"):
        state.unlink()
    node.start()
    _alike(fleet, expected)
    assert {name: fleet.head(name) for name in HOMES} == heads
