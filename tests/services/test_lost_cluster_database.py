"""A cluster's database that is lost is no new one: it is named, and nothing is made in its place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from instep.errors import InstepError
from instep.node.cluster.service import ClusterService
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time


async def _cluster_of(service: ClusterService) -> str:
    async with service.transaction() as (_, era):
        return era.cluster


async def _refused(service: ClusterService) -> InstepError:
    with pytest.raises(InstepError) as refused:
        await _cluster_of(service)
    await service._close()
    return refused.value


@in_virtual_time
async def test_a_database_that_went_is_not_made_anew(tmp_path: Path) -> None:
    """Goal: a file that is gone or empty is refused with the cluster that was there, also after a restart, and no file is
    made; its copy is taken again; a new one goes to another address."""
    file, database = tmp_path / "cluster", tmp_path / "db" / "cluster.db"
    file.write_text(f"sqlite:{database}\n")
    file.chmod(0o600)
    database.parent.mkdir()
    async with services(tmp_path) as cluster:
        main = cluster.add("main")
        main.top.append(f'cluster_file = "{file}"')
        main.writes()
        main.start()
        service = ClusterService(main.node.runtime)
        ours = await _cluster_of(service)
        await service._close()
        shutil.copytree(database.parent, tmp_path / "copy")
        for what in ("is not there", "is empty"):
            for path in database.parent.iterdir():
                path.unlink()
            if what == "is empty":
                database.touch(0o600)
            error = await _refused(ClusterService(main.node.runtime))
            assert error.error_code == "cluster_lost" and what in error.reason and ours[:8] in error.reason
            assert database.exists() == (what == "is empty")
        shutil.rmtree(database.parent)
        shutil.copytree(tmp_path / "copy", database.parent)
        again, new = ClusterService(main.node.runtime), ClusterService(main.node.runtime)
        assert await _cluster_of(again) == ours
        await again._close()
        file.write_text(f"sqlite:{tmp_path / 'new.db'}\n")
        assert await _cluster_of(new) != ours
        await new._close()


@in_virtual_time
async def test_a_cluster_file_that_is_mended_works_at_once(tmp_path: Path) -> None:
    """Goal: no pause after a fault of the file, for its hint says what to do and the next command has to find it
    done; a fault that came in its place is the one that is named."""
    file = tmp_path / "cluster"
    file.write_text(f"sqlite:{tmp_path / 'cluster.db'}\n")
    file.chmod(0o644)
    async with services(tmp_path) as cluster:
        main = cluster.add("main")
        main.top.append(f'cluster_file = "{file}"')
        main.writes()
        main.start()
        service = ClusterService(main.node.runtime)
        with pytest.raises(InstepError) as beaten:
            await service._be_seen()
        assert beaten.value.error_code == "cluster_file_mode"
        file.chmod(0o600)
        file.write_text("two\nlines\n")
        assert (await _refused(service)).error_code == "bad_cluster_address"
        file.write_text(f"sqlite:{tmp_path / 'cluster.db'}\n")
        assert await _cluster_of(service)
        assert service.state.trouble is None
        await service._close()
