"""Filesets of class ``secret``: the partners that keys go to, their rights there, and the old ones that stay."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from instep.net.messages import messages as m
from instep.node.facts.daemon_rights import may_give_away
from instep.node.peers.link_policy import SECRETS
from tests.support.services import Services, services
from tests.support.virtual_time import in_virtual_time, reached


def _secret(cluster: Services) -> None:
    """``main`` writes for ``s1``; ``s2`` is linked with both, and ``s1`` is its hub."""
    main = cluster.add("main")
    main.writes('class = "secret"', 'to = ["s1"]')
    for name in ("s1", "s2"):
        cluster.add(name).follows(main)
        cluster.link("main", name)
    cluster.link("s1", "s2", hub=True)


def _rights(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def _keys(folder: Path) -> list[str]:
    """The keys in files below a folder: kept, staged or left."""
    found = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]
    return [data.decode() for data in found if data.startswith(b"key ")]


@in_virtual_time
async def test_a_key_goes_to_the_named_partner_alone_and_one_old_one_stays(tmp_path: Path) -> None:
    """Goal: 0600 and 0700 whatever the writer's modes are, and no drift by that; nothing over the hub; after each new
    certificate the archive has at most the one before."""
    async with services(tmp_path) as cluster:
        _secret(cluster)
        main, s1, s2 = cluster["main"], cluster["s1"], cluster["s2"]
        main.write({"tls/key.pem": "key 0", "tls/cert.pem": "certificate 0"})
        (main.tree / "tls/key.pem").chmod(0o4755)
        (main.tree / "tls/link").symlink_to("key.pem")
        for node in (main, s1, s2):
            node.start()
        await s1.holds("tls/key.pem", "key 0")
        for number in range(1, 4):
            main.write({"tls/key.pem": f"key {number}"})
            await main.publish()
            await s1.holds("tls/key.pem", f"key {number}")
            await s1.stands("in_step")
            archived = await s1.archived()
            assert list(archived) == ["tls/key.pem"], archived
            assert _keys(s1.control) == [f"key {number - 1}"]
        assert (_rights(s1.tree / "tls/key.pem"), _rights(s1.tree / "tls")) == (0o600, 0o700)
        found = await s1.call("verify", fileset="data", deep=True)
        assert found["identical"], found
        assert not (await s2.line())["head"] and not (s2.tree / "tls").exists()
        assert _keys(main.control) == [], "the writer keeps no old key"
        await main.call("rollback", fileset="data", generation=3)
        await s1.holds("tls/key.pem", "key 2")
        await s1.refuses("is_secret", "export_git", fileset="data", to=str(tmp_path / "repository"))


@in_virtual_time
async def test_an_older_partner_is_offered_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a definition that it cannot decode never reaches it; after its upgrade it has the key."""
    async with services(tmp_path) as cluster:
        _secret(cluster)
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"key.pem": "key"})
        main.start()
        with monkeypatch.context() as patch:
            patch.setattr(m, "TAKES", tuple(word for word in m.TAKES if word != SECRETS))
            s1.start()

            async def is_refused() -> bool:
                row = (await main.call("explain", fileset="data", path="key.pem"))["to"]
                return any(
                    each["node"] == "s1" and "does not know filesets of class secret" in each["why"]
                    for each in row
                )

            await reached(is_refused, lambda: "main says that s1 is too old")
            assert not (await s1.line())["head"]
            await s1.stop()
        s1.start()
        await s1.holds("key.pem", "key")


@in_virtual_time
async def test_a_root_for_keys_is_not_listed_by_other_users(tmp_path: Path) -> None:
    """Goal: ``fileset accept`` made the root as 0755. Where the daemon may give files to the application's account, that
    account goes through the root. Of a root that is there already the operator is warned."""
    async with services(tmp_path) as cluster:
        main, s1, s2 = (cluster.add(name) for name in ("main", "s1", "s2"))
        main.writes('class = "secret"', 'to = ["s1", "s2"]')
        main.write({"server.key": "key 0"})
        for node in (s1, s2):
            cluster.link("main", node.name)
        for node in (main, s1, s2):
            node.start()
        s1.tree.rmdir()
        s2.tree.chmod(0o755)
        assert not (await s1.accepts()).get("warnings")
        assert _rights(s1.tree) == (0o711 if may_give_away() else 0o700)
        (warning,) = (await s2.accepts())["warnings"]
        assert f"chmod 711 {s2.tree}" in warning and _rights(s2.tree) == 0o755, warning
        await s1.holds("server.key", "key 0")
