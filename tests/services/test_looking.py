"""What ``diff`` and ``log`` show of the changes between generations and of those in the tree."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time


async def _shown(node: ServiceNode, **params: object) -> list[str]:
    rows = (await node.call("diff", **{"fileset": "data", **params}))["changes"]
    return sorted(" ".join(filter(None, (row["change"], row.get("from"), row["path"]))) for row in rows)


@in_virtual_time
async def test_renames_are_one_change(tmp_path: Path) -> None:
    """Goal: a file under another name, in another directory, and a whole directory are shown as renamed, before they are
    published and between two generations; a copy, an empty file and a file of another mode are not."""
    async with services(tmp_path) as cluster:
        main = cluster.add("main")
        main.writes('publish = "manual"')
        main.start()
        main.write(
            {
                "z": "one",
                "twin/a": "one",
                "sub/x": "two",
                "old/deep/f": "3",
                "old/g": "4",
                "mode": "5",
                "kept": "6",
            }
        )
        main.write({"empty": "", "void/nil": ""})
        await main.publish()
        first, tree = await main.head(), main.tree
        os.rename(tree / "sub/x", tree / "y")
        (tree / "new").mkdir()
        os.rename(tree / "twin/a", tree / "new/a")
        os.rename(tree / "z", tree / "b")
        os.rename(tree / "old", tree / "older")
        os.rename(tree / "mode", tree / "edom")
        (tree / "edom").chmod(0o600)
        os.rename(tree / "empty", tree / "vacant")
        os.rename(tree / "void/nil", tree / "nil")
        (tree / "copy").write_text("6")
        wanted = [
            "added copy", "added edom", "added new", "added vacant", "removed empty", "removed mode",
            "renamed old older", "renamed sub/x y", "renamed twin/a new/a", "renamed void/nil nil", "renamed z b",
        ]  # fmt: skip
        assert await _shown(main) == wanted
        await main.publish()
        assert await _shown(main, a=first) == wanted
