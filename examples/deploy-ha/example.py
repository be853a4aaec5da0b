"""A high-availability deploy server: three servers on one database and one folder of application data, behind HAProxy.

``s1`` has an installation with data already. It is moved to the shared folder, ``s2`` and ``s3`` are installed beside
it, users keep their server by a cookie, and one node of the cluster at a time does what may happen once. The shared
folder is one directory of this machine, which all three servers name by the same path.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from examples.certificates import certificate_at, new_certificate
from examples.database import Database
from examples.fleet import Fleet, Node
from examples.installation import Installation
from examples.load import Load
from examples.play import narrated, play
from examples.servers import Servers, free_port, program
from examples.users import User, put
from examples.waiting import Failed, eventually, eventually_seen

NAMES = ("s1", "s2", "s3")
APPDATA, KEYSTORE = "appdata", "keystore"
IMPORTS = 5
SERVICE = "deploy.example.org"
PROPERTY = "server.appdata.dir"
CLUSTER = """
[pools.editors]
places = 2
linger = "0s"
grace = "10s"
[jobs.clean]
cron = "*/2 * * * * *"
zone = "UTC"
run = ["{server}", "clean"]
timeout = "20s"
[requests.import]
run = [{instep}, "lease", "run", "import", "--wait", "--", "{server}", "import"]
timeout = "1m"
"""


class Example:
    """The servers, their users and the eleven steps."""

    def __init__(self, top: Path, given: argparse.Namespace) -> None:
        self.top = top
        self.tell = narrated(given)
        self.fleet = Fleet(top, KEYSTORE, home="s1", is_verbose=not given.json)
        self.servers = Servers()
        self.shared = top / "shared/appdata"
        self.front, self.tls_front = free_port(), free_port()
        self.installed: dict[str, Installation] = {}
        self.components: dict[str, str] = {}
        """The text of every component that a user has stored."""
        self.report: dict[str, Any] = {}
        self.users: dict[str, User] = {}

    @property
    def s1(self) -> Node:
        return self.fleet.nodes["s1"]

    def secret_file(self, name: str, text: str) -> Path:
        path = self.top / name
        path.touch(0o600)
        path.write_text(text + "\n")
        return path

    def server(self, name: str, appdata: Path | None = None) -> Installation:
        found = Installation(self.top / name / "deploy-server", self.fleet.nodes[name], self.address, appdata)
        self.installed[name] = self.servers.keep(f"the server of {name}", found)
        return found

    def store(self, path: str, text: str, server: str = "s1") -> None:
        put(self.installed[server].port, path, text)
        self.components[path] = text

    def require_components(self, *servers: str) -> None:
        """Every component is the same at each of these servers."""
        for name in servers or tuple(self.installed):
            user = User("operator", self.installed[name].port)
            for path, text in self.components.items():
                if (answer := user.ask(f"/component/{path}")) != (200, text):
                    raise Failed(f"{name} answers {answer} for {path}")

    # Steps ----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self.tell("1. A database server, and a deploy server with its data in its own installation.")
        self.database = Database(self.top / "postgres", self.servers)
        for name in ("deploy", "cluster"):
            self.database.ask("postgres", f"CREATE DATABASE {name}")
        self.address = self.secret_file("connection", self.database.address("deploy"))
        self.cluster_file = self.secret_file("cluster", self.database.address("cluster"))
        self.fleet.make_named(*NAMES)
        self.server("s1").start()
        for number in range(20):
            self.store(f"component-{number}", f"version 1 of component {number}\n" * 50)

    def move(self) -> None:
        self.tell(
            "2. Its data moves to the folder that all servers will share; the originals go when all is verified."
        )
        source = self.installed["s1"].home
        found = self.s1.run("layout", "detect", str(source))
        self.shared.parent.mkdir()
        self.s1.run("layout", "move", str(source), str(self.shared), "--layout", "deploy-server")
        if self.installed["s1"].property(PROPERTY) != str(self.shared):
            raise Failed(f"{PROPERTY} was not set")
        self.require_components()
        self.s1.run(
            "layout", "move", str(source), str(self.shared), "--layout", "deploy-server", "--delete-originals"
        )
        self.require_components()
        left = sorted(
            str(each.relative_to(source)) for each in source.rglob("appdata/**/*") if each.is_file()
        )
        (form,) = found["layouts"]
        self.tell(f"   {form['layout']}, form {form['form']}; left in the installation: {', '.join(left)}")

    def join(self) -> None:
        self.tell("3. Two more servers by the installer, on the same database and folder; their nodes join.")
        self.s1.tree.mkdir(exist_ok=True)
        new_certificate(self.s1.tree, SERVICE)
        settings = f'cluster_file = "{self.cluster_file}"\n{self.fleet.listeners(self.s1)}'
        self.s1.run(
            "fileset", "add", KEYSTORE, str(self.s1.tree), "--class", "secret", "--to", "s2", "--to", "s3",
            "--publish", "manual", "--gate", "version", "--gate", "database",
        )  # fmt: skip
        self.s1.run(
            "fileset",
            "add",
            APPDATA,
            str(self.shared),
            "--class",
            "data",
            "--publish",
            "manual",
            "--ignore",
            "*.tmp",
        )
        self.s1.add_settings(top=settings, tables=self.tables("s1") + self.backup_table())
        self.s1.run("publish", KEYSTORE, "-m", "the first certificate")
        for name in NAMES[1:]:
            version = self.server(name, self.shared).home / "conf/installed.version"
            version.write_text({"s3": "8.0.9\n"}.get(name, version.read_text()))
            self.installed[name].start()
            node = self.fleet.nodes[name]
            self.fleet.join(
                node, "--cluster-file", str(self.cluster_file), "--accept", f"{KEYSTORE}={node.tree}",
                settings=self.tables(name),
            )  # fmt: skip

    def require_same(self) -> None:
        """A server of another version is held off, until it is upgraded."""

        def is_blocked() -> tuple[bool, str]:
            line = self.fleet.nodes["s3"].line(KEYSTORE)
            return line["standing"] == "blocked", f"{line['standing']}: {line['reason']}"

        self.tell(f"   s3 is {eventually_seen(is_blocked, 's3 to be blocked by its version', 60)}")
        upgraded = self.installed["s3"].home / "conf/installed.version"
        upgraded.write_text((self.installed["s1"].home / "conf/installed.version").read_text())
        self.fleet.wait()

    def tables(self, name: str) -> str:
        """What stands in each node's file beside its filesets."""
        each = self.installed[name]
        words = [sys.executable, "-m", "instep.cli", "--dir", str(each.node.directory)]
        return CLUSTER.format(server=each.program, instep=json.dumps(words)[1:-1]) + (
            f'[filesets.{KEYSTORE}.hooks]\nreload = {{ signal = "HUP", pid_file = "{each.pid_file}" }}\n'
            f'[facts.version]\nfile = "{each.home}/conf/installed.version"\n'
            f'[facts.database]\nfingerprint_of = "{self.address}"\n'
        )

    def backup_table(self) -> str:
        query = "SELECT 'var/repository/' || path FROM component"
        return (
            f'[backup]\nto = "{self.top}/backups"\nfilesets = ["{APPDATA}"]\nkeep_last = 3\n'
            f'database = {{ pg_dump = "{self.address}" }}\nreferences = {{ {APPDATA} = "{query}" }}\n'
        )

    def serve(self) -> None:
        self.tell("4. HAProxy in front: a user keeps a server by a cookie, and no user can forge an address.")
        self.require_components()
        places = ", ".join(
            f'{name} = {{ http = "127.0.0.1:{each.port}", https = "127.0.0.1:{each.tls_port}", '
            f'health = "127.0.0.1:{each.node.health}", agent = "127.0.0.1:{each.node.agent}" }}'
            for name, each in self.installed.items()
        )
        self.s1.add_settings(
            tables=f'[balancers.deploy]\nfilesets = ["{KEYSTORE}"]\nbackends = {{ {places} }}\n'
            f'http = {{ listen = "127.0.0.1:{self.front}", backend = 80 }}\n'
            f'https = {{ listen = "127.0.0.1:{self.tls_front}", backend = 443 }}\n'
        )
        path = self.top / "haproxy.cfg"
        self.s1.run("balancer", "render", "haproxy", "--output", str(path), "--check")
        words = [program("haproxy", "haproxy"), "-db", "-f", str(path)]
        self.servers.start("HAProxy", words, self.front, self.top / "haproxy.log")
        ana = User("ana", self.front)
        eventually(lambda: ana.ask("/client")[0] == 200, "an answer through HAProxy", 60)
        ana = User("ana", self.front)
        if ana.log_in() != 200:
            raise Failed("ana got no place")
        for _ in range(10):
            ana.require_session()
        behind = User("eve", self.installed["s2"].port).ask(
            "/client", address="127.0.0.3", X_Forwarded_For="10.1.2.3"
        )
        through = User("eve", self.front).ask("/client", address="127.0.0.2", X_Forwarded_For="10.1.2.3")
        if (behind, through) != ((200, "127.0.0.3"), (200, "127.0.0.2")):
            raise Failed(f"a forged address was believed: {behind}, {through}")
        self.users = {"ana": ana}

    def take_seats(self) -> None:
        self.tell("5. Two places: ana works on all three servers with one, bo has the other, cy is refused.")
        for each in self.installed.values():
            if User("ana", each.port).log_in() != 200:
                raise Failed("ana takes more than one place")
        bo = self.users["bo"] = User("bo", self.front)
        answers = bo.log_in(), User("cy", self.front).log_in()
        if answers != (200, 503):
            raise Failed(f"bo and cy were answered {answers}")
        (pool,) = self.s1.run("seat", "list")["pools"]
        if pool["taken"] != 2:
            raise Failed(f"not two places are taken: {pool}")

    def run_once(self) -> None:
        self.tell(
            "6. A job every two seconds, once in the cluster; imports, each taken by one node under a lock."
        )
        asked = {f"import-{number}": f"imported {number}\n" for number in range(IMPORTS)}
        for path, text in asked.items():
            self.s1.run("request", "add", "import", json.dumps({"path": path, "text": text}), "--id", path)
        for path, text in asked.items():
            words = json.dumps({"path": path, "text": text}), "--id", path, "--wait", "--timeout", "60s"
            self.fleet.nodes["s2"].run("request", "add", "import", *words)
        self.components |= asked
        runs = [each["run"] for each in self.s1.run("request", "list", "import")["requests"]]
        self.report["imports"] = dict(Counter(f"{run['state']} by {run['node']}" for run in runs))
        if len(runs) != IMPORTS:
            raise Failed(f"an import that was asked for twice ran twice: {runs}")
        self.require_components()

    def ticks(self) -> tuple[int, int]:
        """Ticks that the job was started for, and starts beyond one for each."""
        found = self.database.ask("deploy", "SELECT count(DISTINCT tick), count(*) FROM cleaning")
        distinct, starts = (int(each) for each in found.split("|"))
        return distinct, starts - distinct

    def renew(self) -> None:
        self.tell("7. A new certificate: written on s1, served by all three a moment later.")
        digest = new_certificate(self.s1.tree, SERVICE)
        began = time.monotonic()
        self.s1.run("publish", KEYSTORE, "-m", "renewed")

        def is_served() -> tuple[bool, list[str]]:
            found = [certificate_at(each.tls_port) for each in self.installed.values()]
            return set(found) == {digest}, found

        eventually_seen(is_served, "the new certificate on all servers", 30)
        self.report["certificate_s"] = round(time.monotonic() - began, 1)
        if certificate_at(self.tls_front) != digest:
            raise Failed("HAProxy passes on another certificate")
        keys = [each.node.tree / "server.key" for each in self.installed.values()]
        if modes := [str(key) for key in keys if key.stat().st_mode & 0o077]:
            raise Failed(f"a key can be read by others: {modes}")

    def back_up(self) -> str:
        self.tell("8. A backup while users write, verified in a scratch database.")
        stop = threading.Event()
        writer = threading.Thread(target=self.write_on, args=(stop,))
        writer.start()
        try:
            made = self.s1.run("backup", "create")
        finally:
            stop.set()
            writer.join()
        found = self.s1.run("backup", "verify", made["id"])
        doubt = f", in doubt: {found['in_doubt']}" if found["in_doubt"] else ""
        self.tell(f"   {made['id']}: {made['label']}, {found['files']} files{doubt}")
        self.report["backup"] = made["label"]
        return str(made["id"])

    def write_on(self, stop: threading.Event) -> None:
        number = 0
        while not stop.wait(0.02):
            text = f"written while the backup was made: {number}\n"
            self.store(f"written-{number}", text, NAMES[number % 3])
            number += 1

    def lose_a_server(self) -> None:
        self.tell("9. A server dies: no request fails, its users sign in again elsewhere, jobs go on.")
        ana = self.users["ana"]
        ana.require_session()
        died = ana.node
        self.installed[died].kill()
        before = self.ticks()[0]

        def is_back() -> tuple[bool, str]:
            return ana.log_in() == 200 and ana.node != died, ana.node

        now = eventually_seen(is_back, "ana to sign in at another server", 30)
        ana.require_session()
        eventually(lambda: self.ticks()[0] >= before + 2, "two more ticks of the job", 30)
        self.tell(f"   {died} was killed, ana works on {now}")
        self.fleet.nodes[died].run("start")
        self.installed[died].start()
        self.fleet.wait()

    def maintain(self) -> None:
        self.tell("10. Maintenance of s2: HAProxy sends it no client, it starts no job, and it comes back.")
        s2 = self.fleet.nodes["s2"]
        s2.run("maintenance", "on", "--reason", "new disks", "--wait")

        def answered() -> set[str]:
            users = [User("visitor", self.front) for _ in range(6)]
            return {user.node for user in users if user.ask("/component/component-1")[0] == 200}

        eventually(lambda: answered() == {"s1", "s3"}, "s2 to be out of HAProxy", 30)
        before = self.ticks()[0]
        eventually(lambda: self.ticks()[0] >= before + 2, "two ticks without s2", 30)
        s2.run("maintenance", "off")
        eventually(lambda: "s2" in answered(), "s2 to be back in HAProxy", 30)

    def restore(self, backup: str) -> None:
        self.tell("11. The repository is emptied by mistake: stop, restore files and database, start.")
        kept = dict(self.components)
        for file in (self.shared / "var/repository").iterdir():
            file.unlink()
        self.database.ask("deploy", "DELETE FROM component")
        for each in self.installed.values():
            each.close()
            each.node.run("stop")
        self.s1.run("backup", "restore", backup)
        for each in self.installed.values():
            each.node.run("start")
            each.start()
        named = set(self.database.ask("deploy", "SELECT path FROM component").split())
        lacks = {path for path in kept if not path.startswith("written-")} - named
        if lacks:
            raise Failed(f"the restored database lacks {sorted(lacks)}")
        self.components = {path: text for path, text in kept.items() if path in named}
        self.require_components()
        leases = self.s1.run("lease", "list")
        (pool,) = self.s1.run("seat", "list")["pools"]
        held = [each["name"] for each in leases["leases"] if each["state"] == "held"]
        if pool["taken"] or held:
            raise Failed(f"rights of before the restore are in force: {pool}, {held}")
        self.tell(f"   {len(named)} components; era {leases['database']['era']}, and no user has a seat")

    # The play -------------------------------------------------------------------------------------------------

    def play(self) -> dict[str, Any]:
        began = time.monotonic()
        self.begin()
        self.move()
        self.join()
        self.require_same()
        self.serve()
        load = Load(self.front, "/component/component-1", every_s=0.2)
        load.start()
        try:
            self.take_seats()
            self.run_once()
            self.renew()
            backup = self.back_up()
            self.lose_a_server()
            self.maintain()
        finally:
            load.stop()
            load.keep(self.top / "requests.log")
        ticks, twice = self.ticks()
        if twice:
            raise Failed(f"{twice} ticks of the job were started twice")
        self.restore(backup)
        shown = hashlib.sha256(self.components["component-1"].encode()).hexdigest()[:16]
        return {
            **load.report("text/plain", {shown}), "ticks": ticks, **self.report, "untold": self.fleet.untold(),
            "seconds": round(time.monotonic() - began, 1),
        }  # fmt: skip


if __name__ == "__main__":
    sys.exit(play(__doc__, Example))
