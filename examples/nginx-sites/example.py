"""Three nginx nodes whose own configuration is the fileset, behind another nginx: good changes and bad ones.

``home`` is where it is made; it serves no clients. Each node keeps what is its own in ``local/``, which is ignored.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from examples.fleet import Fleet, Node
from examples.load import Load, ask
from examples.play import narrated, play
from examples.servers import Servers, free_port, nginx_local, nginx_main, program
from examples.waiting import Failed, eventually_seen

FILESET = "sites"
NGINX = """include local/main.conf;  # user, pid file, error log: each node's own
events { worker_connections 256; }
http {
    access_log off;
    include local/http.conf;
    server {
        include local/listen.conf;
        include sites/*.conf;
    }
}
"""


def page(number: int) -> str:
    return f"site {number}.{number}\n"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Example:
    """The cluster, its servers and the load, step by step."""

    def __init__(self, top: Path, given: argparse.Namespace) -> None:
        self.top = top
        self.rollouts: int = given.rollouts
        self.tell = narrated(given)
        self.fleet = Fleet(top, FILESET, is_verbose=not given.json)
        self.servers = Servers()
        self.front = free_port()
        self.ports: dict[str, int] = {}
        self.number = 0
        """Of the site that all nodes serve."""

    # The configuration --------------------------------------------------------------------------------------

    def write(self, tree: Path, path: str, text: str) -> None:
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def write_local(self, node: Node) -> None:
        """What belongs to this node alone, and is never carried."""
        port = self.ports[node.name] = free_port()
        base = node.directory.parent
        main, http = nginx_local(base, "nginx")
        self.write(node.tree, "local/main.conf", main)
        self.write(node.tree, "local/http.conf", http)
        listen = f"listen 127.0.0.1:{port};\nset $node {node.name};\nadd_header X-Node {node.name} always;\n"
        self.write(node.tree, "local/listen.conf", listen)

    def write_site(self, number: int, more: str = "") -> None:
        """Two files that belong together: an answer made of one old and one new counts as a failure."""
        tree = self.fleet.home.tree
        self.write(tree, "sites/a.conf", f"set $number {number};\n")
        self.write(
            tree, "sites/b.conf",
            f'{more}location / {{\n    default_type text/plain;\n    return 200 "site $number.{number}\\n";\n}}\n',
        )  # fmt: skip

    # The servers --------------------------------------------------------------------------------------------

    def serve(self, node: Node) -> None:
        """An nginx that ran before instep came: its own configuration, by hand."""
        self.write_local(node)
        self.write(node.tree, "nginx.conf", NGINX)
        self.write(node.tree, "sites/b.conf", 'location / {\n    return 200 "by hand\\n";\n}\n')
        base = node.directory.parent
        words = [
            program("nginx", "nginx-light"),
            "-e",
            str(base / "nginx.log"),
            "-c",
            f"{node.tree}/nginx.conf",
        ]
        port = self.ports[node.name]
        self.servers.start(f"nginx of {node.name}", [*words, "-g", "daemon off;"], port, base / "nginx.log")

    def balance(self) -> None:
        """Another nginx before them. Its upstreams are rendered by home, again whenever a node is drained."""
        home = self.fleet.home
        file, top = self.top / "front.d" / "site.conf", self.top
        file.parent.mkdir()
        names = [node.name for node in self.fleet.serving]
        places = ", ".join(
            f'{node.name} = "127.0.0.1:{self.ports[node.name]}"' for node in self.fleet.serving
        )
        home.add_settings(
            tables=f'[balancers.site]\nkind = "nginx"\nonly = "backend"\nfile = "{file}"\nfilesets = ["{FILESET}"]\n'
            f'nodes = {json.dumps(names)}\naffinity = "off"\nbackends = {{ {places} }}\n'
            f'http = {{ listen = "127.0.0.1:{self.front}", backend = 80 }}\n'
            f'reload = {{ signal = "HUP", pid_file = "{top}/front.pid" }}\n'
        )
        home.run("balancer", "render", "nginx", "--only", "backend", "--output", str(file), "--replace")
        conf = top / "front.conf"
        conf.write_text(f"{nginx_main(top, 'front')}    include {file};\n}}\n")
        words = [
            program("nginx", "nginx-light"),
            "-e",
            str(top / "front.log"),
            "-c",
            str(conf),
            "-g",
            "daemon off;",
        ]
        self.servers.start("the nginx in front", words, self.front, top / "front.log")

    # The play -----------------------------------------------------------------------------------------------

    def play(self) -> dict[str, Any]:
        began = time.monotonic()
        self.tell(
            "1. Three nginx with a configuration by hand; then home's, tested on each node before it goes live."
        )
        self.fleet.make(3, "n")
        home = self.fleet.home
        self.write_local(home)
        self.write(home.tree, "nginx.conf", NGINX)
        self.write_site(1)
        self.number = 1
        home.run(
            "fileset", "add", FILESET, str(home.tree), "--publish", "manual", "--recipe", "nginx",
            "--ignore", "/local/",
        )  # fmt: skip
        home.add_settings(tables=f'[filesets.{FILESET}.rollout]\nstrategy = "rolling"')
        self.fleet.publish("the first site")
        for node in self.fleet.serving:
            self.serve(node)
            self.fleet.join(node)
            node.run(
                "fileset", "accept", FILESET, str(node.tree), "--seed", "--recipe", "nginx",
                "--param", f"url=http://127.0.0.1:{self.ports[node.name]}/",
                "--param", f"pid_file={node.directory.parent}/nginx.pid",
            )  # fmt: skip
        self.fleet.wait()
        self.require_site(1)
        self.tell("2. Another nginx before them, and a steady load of requests.")
        self.balance()
        load = Load(self.front, "/", every_s=0.05)
        load.start()
        try:
            self.roll(load)
            self.refuse_everywhere()
            self.put_back_everywhere()
        finally:
            load.stop()
            load.keep(self.top / "requests.log")
        return {**self.report(load), "seconds": round(time.monotonic() - began, 1)}

    def roll(self, load: Load) -> None:
        self.tell(f"3. {self.rollouts} good changes, node by node.")
        for number in range(2, 2 + self.rollouts):
            began, before = time.monotonic(), len(load.answers)
            self.write_site(number)
            self.fleet.publish(f"site {number}")
            self.fleet.wait()
            self.number = number
            self.require_site(number)
            took, requests = time.monotonic() - began, len(load.answers) - before
            self.tell(f"   site {number}: on every node after {took:.1f} s, {requests} requests meanwhile")

    def require_site(self, number: int) -> None:
        for node in self.fleet.serving:
            answer = ask(self.ports[node.name], "/")
            if (answer.status, answer.digest) != (200, digest(page(number))):
                raise Failed(f"{node.name} does not serve site {number}: {answer}")

    def require_before(self, broken: int) -> None:
        """No node's live generation is the broken one, and all still answer as before."""
        for node in self.fleet.serving:
            live = node.line(FILESET)["live"]["number"]
            if live >= broken:
                raise Failed(f"{node.name} serves generation {live}, and {broken} is broken")
        self.require_site(self.number)

    def refuse_everywhere(self) -> None:
        home, nodes = self.fleet.home, self.fleet.serving
        self.tell("4. A configuration that nginx -t rejects: home does not even publish it.")
        self.write_site(90, "no_such_directive on;\n")
        refused = home.run("publish", FILESET, "-m", "rejected", expect=4)["error"]
        self.tell(f"   home: {refused['reason']}")
        self.tell("5. One that nginx -t accepts at home and rejects on the nodes: it goes live on none.")
        self.write(home.tree, "local/only-at-home.conf", "# a file that no other node has\n")
        self.write_site(91, "include local/only-at-home.conf;\n")
        broken = self.fleet.publish("rejected on the nodes")
        for node in nodes:
            line = self.fleet.await_failing(node, broken, "validate_failed")
            self.tell(f"   {node.name}: {line['reason']}")
        self.require_before(broken)

    def put_back_everywhere(self) -> None:
        nodes = self.fleet.serving
        self.tell(
            "6. One that every nginx -t accepts, and that answers 500 on the last node: put back on all."
        )
        self.write_site(92, "if ($node = n3) {\n    return 500;\n}\n")
        broken = self.fleet.publish("500 on n3")

        def serves(node: Node) -> tuple[bool, object]:
            answer = ask(self.ports[node.name], "/")
            return answer.digest == digest(page(92)), answer

        for node in nodes[:2]:
            eventually_seen(lambda node=node: serves(node), f"{node.name} to serve what will be put back", 99)  # type: ignore[misc]
            self.tell(f"   {node.name} serves it")
        line = self.fleet.await_failing(nodes[2], broken, "probe_failed", "500")
        self.tell(f"   n3: {line['reason']}")
        for node in nodes[:2]:
            line = self.fleet.await_failing(node, broken, "put_back_ordered")
            self.tell(f"   {node.name}: {line['reason']}")

        self.tell(f"   the rollout is put back: {self.fleet.await_put_back(broken)}")
        self.require_before(broken)
        self.tell("7. The configuration mended, and on every node.")
        self.write_site(self.number + 1)
        self.fleet.publish("mended")
        self.fleet.wait()
        self.number += 1
        self.require_site(self.number)

    def report(self, load: Load) -> dict[str, Any]:
        good = {digest(page(number)) for number in (*range(1, self.number + 1), 92)}
        return {
            "changes": self.rollouts,
            "rollouts": self.fleet.outcomes(),
            "untold": self.fleet.untold(),
            **load.report("text/plain", good),
        }


if __name__ == "__main__":
    sys.exit(play(__doc__, Example, rollouts=2))
