"""The sources of facts, and their bounds."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import subprocess
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from instep.model.address import Address
from instep.model.ids import FilesetName, NodeName
from instep.model.share import share_of
from instep.node.config.facts import FactSettings, ServiceSettings
from instep.node.config.filesets import ExpectedMount, FilesetSettings
from instep.node.config.settings import Settings
from instep.node.facts import cache, facts
from instep.node.facts.cache import FactCache
from instep.node.facts.mounts import is_expected, mount_at, row_of, why_shared
from instep.node.facts.people import access_of, run_as, service_of
from tests.support.waiting import eventually, eventually_async

ADDRESS = Address("127.0.0.1", 7443)
SH = "/bin/sh"


KEY = b"k" * 32


def told(key: bytes = KEY, **fact: FactSettings) -> dict[str, str]:
    settings = Settings(name=NodeName("main"), listen=ADDRESS, advertise=ADDRESS, facts=fact)
    found = facts.calls_of(settings)
    return facts.told({name: found[name]() for name in fact}, key)


def test_every_source(tmp_path: Path) -> None:
    """Goal: E4, G3, G4. Each source gives its value, one that cannot be had says why. Method: one of each."""
    (tmp_path / "lib").mkdir()
    for name in ("b.jar", "a.jar"):
        (tmp_path / "lib" / name).write_text(name)
    secret = tmp_path / "secret"
    secret.write_text("password")
    found = told(
        run=FactSettings(run=(SH, "-c", "echo 'version \"17.0.1\"' >&2"), match='version "([^"]+)"'),
        failed=FactSettings(run=(SH, "-c", "echo 1; exit 3")),
        missing=FactSettings(run=(str(tmp_path / "nothing"),)),
        plugins=FactSettings(list=tmp_path / "lib"),
        war=FactSettings(digest_of=tmp_path / "lib" / "a.jar"),
        database=FactSettings(fingerprint_of=secret),
        mode=FactSettings(value="production"),
    )
    assert found["run"] == "17.0.1"
    assert found["failed"] == "<ended with 3>"
    assert found["missing"] == "<cannot be read: No such file or directory>"
    assert found["plugins"] == "a.jar\nb.jar"
    assert len(found["war"]) == 64
    assert len(found["database"]) == 32
    assert "password" not in found["database"]
    assert found["mode"] == "production"
    secret.write_text("passworD")
    assert told(database=FactSettings(fingerprint_of=secret)) != {"database": found["database"]}
    assert (
        told(other=FactSettings(fingerprint_of=secret))["other"]
        != told(database=FactSettings(fingerprint_of=secret))["database"]
    ), "equal secrets under two names look different"


def test_the_platform_names_system_machine_and_c_library() -> None:
    """A gate on it keeps what was built for one C library from servers with another."""
    settings = Settings(name=NodeName("main"), listen=ADDRESS, advertise=ADDRESS)
    found = facts.calls_of(settings)["platform"]()
    library = platform.libc_ver()[0] or "unknown"
    assert found == f"{platform.system().lower()}-{platform.machine()}-{library}"


def test_a_fingerprint_is_told_under_the_key_of_the_question_only(tmp_path: Path) -> None:
    """Goal: a fingerprint sent to one node helps no other node to guess, and a shown one is worth nothing without the
    key."""
    secret = tmp_path / "secret"
    secret.write_text("password")
    fact = FactSettings(fingerprint_of=secret)
    assert told(database=fact) == told(database=fact)
    assert told(database=fact) != told(b"o" * 32, database=fact)
    assert told(b"", database=fact) == {"database": "<asked without a key: upgrade the node that asks>"}


def test_pipes_devices_and_what_is_too_large_are_refused_at_once(tmp_path: Path) -> None:
    """Goal: bounded. Method: a FIFO without a writer, an endless device, a directory, sparse files over the limits."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate((4 << 30) + 1)
    for path in (fifo, Path("/dev/zero"), tmp_path):
        found = told(
            a=FactSettings(file=path), b=FactSettings(digest_of=path), c=FactSettings(fingerprint_of=path)
        )
        assert set(found.values()) == {"<not a regular file>"}, (path, found)
    found = told(
        a=FactSettings(file=large), b=FactSettings(digest_of=large), c=FactSettings(fingerprint_of=large)
    )
    assert [value.rpartition(" ")[2] for value in found.values()] == ["1048576>", "4294967296>", "65536>"]
    many = tmp_path / "many"
    many.mkdir()
    for number in range(1_001):
        (many / str(number)).touch()
    assert told(many=FactSettings(list=many)) == {"many": "<more than 1000 names>"}


def test_a_fact_that_hangs_delays_no_other_and_is_not_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a deadline for each fact. Method: of two facts one blocks as a dead mount does, then it comes back."""
    free, asked = threading.Event(), []

    def hangs() -> str:
        asked.append(1)
        free.wait(30)
        return "late"

    monkeypatch.setattr(facts, "FACT_S", -2.0)
    monkeypatch.setattr(cache, "calls_of", lambda _: {"dead": hangs, "good": lambda: "1"})
    settings = Settings(name=NodeName("main"), listen=ADDRESS, advertise=ADDRESS)

    async def ask() -> None:
        cache = FactCache()
        assert await cache.of_node(settings) == {"dead": "<no answer within 1 s>", "good": "1"}
        found = await cache.of_node(settings)
        assert found == {"dead": "<still no answer to the last question>", "good": "1"}
        assert asked == [1]
        free.set()

        async def is_back() -> bool:
            return (await cache.of_node(settings))["dead"] == "late"

        await eventually_async(is_back)

    asyncio.run(ask())


def test_the_user_of_a_service_by_pid_file(tmp_path: Path) -> None:
    """Goal: E19: the user that the service runs as; of a root process that only starts others, those count."""
    pid_file = tmp_path / "pid"
    service = ServiceSettings(pid_file=pid_file)
    assert service_of(service, 5) == "<cannot be read: No such file or directory>"
    pid_file.write_text("no number")
    assert service_of(service, 5) == f"<{pid_file} holds no process number>"
    with subprocess.Popen(
        ("sleep", "60")
    ) as alone:  # below the test's own process other users' servers may run
        pid_file.write_text(str(alone.pid))
        assert service_of(service, 5) == run_as()
        alone.kill()
    assert service_of(ServiceSettings(user="no-such-user"), 5) == "<no user no-such-user here>"
    if os.geteuid() == 0:
        assert service_of(ServiceSettings(user="nobody"), 5) == "nobody:nogroup"
        script = f"echo $$ > {pid_file}; setpriv --reuid 65534 --regid 65534 --clear-groups sleep 60 & wait"
        with subprocess.Popen((SH, "-c", script), start_new_session=True) as starter:
            try:
                eventually(lambda: service_of(service, 5) == "nobody:nogroup", 10)
            finally:
                os.killpg(starter.pid, signal.SIGKILL)


def test_access_is_tried_as_the_services_user_and_leaves_nothing() -> None:
    """Goal: E18, D9: read, write, rename and delete as that user, for real. Method: below a place that all reach."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        root = Path(place) / "root"
        root.mkdir(mode=0o755)
        (root / "file").write_text("mine")
        assert access_of(root, None, 10) == "read\nwrite\nrename\ndelete"
        if os.geteuid() == 0:
            nobody = ServiceSettings(user="nobody")
            found = access_of(root, nobody, 10).splitlines()
            assert found[:2] == ["read", "no write: Permission denied"], found
            (root / "file").chmod(0o600)
            assert access_of(root, nobody, 10).splitlines()[0] == "no read: Permission denied"
            (root / "file").chmod(0o644)
            root.chmod(0o1777)
            assert access_of(root, nobody, 10) == "read\nwrite\nrename\ndelete"
        assert os.listdir(root) == ["file"]


def test_the_mount_that_holds_a_path() -> None:
    """Goal: G5, E16: kind, place and the options that count; the last of several at one place."""
    table = """21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:40 / /mnt/ma\\040ps rw,noatime - nfs4 srv:/m rw,vers=4.2,hard,clientaddr=10.0.0.1,addr=10.0.0.2
31 21 0:41 / /mnt/other ro - tmpfs none rw,size=1k
""".replace("\\\\", "\\")
    maps = mount_at(Path("/mnt/ma ps/data"), table)
    assert str(maps) == "nfs4 rw,noatime,vers=4.2,hard"
    assert maps is not None
    assert maps.named == "nfs4 on /mnt/ma ps"
    assert "every machine that mounts it may write" in str(why_shared(maps))
    assert str(mount_at(Path("/mnt/mapsomething"), table)) == "ext4 rw,relatime"
    assert str(mount_at(Path("/mnt/other"), table)) == "tmpfs ro"
    assert is_expected(maps, ExpectedMount("nfs4", share=share_of("nfs://SRV/m/")))
    assert not is_expected(maps, ExpectedMount("nfs4", share=share_of("srv:/other")))
    assert not is_expected(maps, ExpectedMount(share=share_of("//srv/m"), kind=None))
    assert row_of(maps, Path("/mnt/ma ps"), is_observed=False)[2] is None
    assert "mount it ro" in str(row_of(maps, Path("/mnt/ma ps"), is_observed=True)[2])
    assert row_of(maps, Path("/mnt/ma ps"), is_observed=True)[0].endswith(" from srv:/m")
    assert is_expected(maps, ExpectedMount("nfs4"))
    assert is_expected(maps, ExpectedMount(None, "/mnt/ma ps"))
    assert not is_expected(maps, ExpectedMount("nfs4", "/mnt/maps"))
    assert not is_expected(maps, ExpectedMount("ext4"))
    assert why_shared(mount_at(Path("/x"), table)) is None


def test_a_program_that_prints_without_end_is_ended() -> None:
    """Goal: bounded. Method: ``yes`` prints forever; the answer comes at the limit, not at the deadline."""
    assert told(endless=FactSettings(run=("/usr/bin/yes",))) == {"endless": "<prints more than 65536 bytes>"}


def test_what_a_program_started_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: bounded. Method: a program leaves a child that holds the pipe; the deadline ends the group."""
    monkeypatch.setattr(facts, "FACT_S", 1.5)  # the shell has begun by then
    pid_file = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {pid_file}; exit 0"
    assert told(slow=FactSettings(run=(SH, "-c", script))) == {"slow": "<no answer within 1.5 s>"}
    state = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    eventually(lambda: not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z", 5)


def test_peers_cannot_make_a_program_run_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: rate bounded. Method: fifty questions at once and after another run the program once; another
    configuration asks anew. An answer is kept for longer than a busy machine needs for all of them."""
    monkeypatch.setattr(cache, "KEPT_S", 600.0)
    ran = tmp_path / "ran"
    fact = FactSettings(run=(SH, "-c", f"echo x >> {ran}; echo 1"))
    settings = Settings(name=NodeName("main"), listen=ADDRESS, advertise=ADDRESS, facts={"one": fact})
    fileset = FilesetSettings(name=FilesetName("data"), path=tmp_path, writer=NodeName("main"))

    async def ask() -> None:
        gathered = FactCache()
        for _ in range(2):
            answers = await asyncio.gather(*(gathered.facts(settings, fileset, ["one"]) for _ in range(25)))
            assert {answer["one"] for answer in answers} == {"1"}
        assert len(ran.read_text().splitlines()) == 1
        await gathered.facts(replace(settings, fingerprint="other"), fileset, ["one"])
        assert len(ran.read_text().splitlines()) == 2

    asyncio.run(ask())
    assert os.listdir(tmp_path) == ["ran"]
