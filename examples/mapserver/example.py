"""Three MapServer nodes behind HAProxy: ten changes of style under load, then three broken maps.

``home`` is where maps are made; it serves no clients. ``m1`` to ``m3`` are nginx and MapServer, each on its own copy.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from examples.fleet import Fleet, Node
from examples.load import Load, ask, told
from examples.play import narrated, play
from examples.servers import FastCgi, Servers, free_port, nginx_main, program
from examples.waiting import Failed, eventually

FILESET = "maps"
ASKED = (
    "/wms?SERVICE=WMS&VERSION=1.3.0&REQUEST=GetMap&LAYERS={}&STYLES=&CRS=EPSG:3857"
    "&BBOX=0,0,100,100&WIDTH=200&HEIGHT=200&FORMAT=image/png"
)
WMS = ASKED.format("coast,blocks,roads")
COAST = ASKED.format("coast")
"""A golden answer: no change of style may change it."""
PNG = "image/png"
ENABLED = '"wms_enable_request" "*"'
CITY = f"""MAP
  NAME "city"
  EXTENT 0 0 100 100
  SIZE 200 200
  UNITS METERS
  PROJECTION "init=epsg:3857" END
  WEB
    METADATA
      "wms_title" "city"
      "wms_srs" "EPSG:3857"
      "wms_onlineresource" "http://localhost/wms?"
      {ENABLED}
    END
  END
  INCLUDE "layers/coast.map"
  INCLUDE "layers/blocks.map"
  INCLUDE "layers/roads.map"
END
"""


def style(number: int, colour: str) -> str:
    return f"# change {number}\nCLASS STYLE COLOR {colour} WIDTH 3 END END\n"


def layer(name: str, kind: str, lines: list[list[tuple[int, int]]]) -> str:
    features = "".join(
        f"  FEATURE POINTS {' '.join(f'{x} {y}' for x, y in points)} END END\n" for points in lines
    )
    return (
        f'LAYER\n  NAME "{name}"\n  TYPE {kind}\n  STATUS ON\n  PROJECTION "init=epsg:3857" END\n'
        f'{features}  INCLUDE "styles/{name}.map"\nEND\n'
    )


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
        self.good: dict[str, str] = {}
        """Digest of a picture, and which change it shows."""

    # The map ------------------------------------------------------------------------------------------------

    def write(self, path: str, text: str) -> None:
        """As an editor does it: a new file in the place of the old one."""
        file = self.fleet.home.tree / path
        file.parent.mkdir(exist_ok=True)
        new = file.with_name(f".{file.name}.tmp")
        new.write_text(text)
        new.rename(file)

    def write_style(self, number: int) -> None:
        """Two files that belong together: a picture that shows one old and one new counts as a failure."""
        self.write("styles/blocks.map", style(number, f"{200 - 15 * number} {15 * number} 60"))
        self.write("styles/roads.map", style(number, f"{15 * number} 40 {200 - 15 * number}"))

    def write_map(self) -> None:
        blocks = [
            [(x, y), (x + 7, y), (x + 7, y + 7), (x, y + 7), (x, y)]
            for x in range(5, 95, 10)
            for y in range(5, 95, 10)
        ]
        roads = [[(0, y), (50, y + 5), (100, y)] for y in range(3, 100, 10)]
        self.write("layers/blocks.map", layer("blocks", "POLYGON", blocks))
        self.write("layers/roads.map", layer("roads", "LINE", roads))
        self.write("city.map", CITY)
        self.write("styles/coast.map", style(0, "20 20 20"))
        self.write_coast([(2, 2), (98, 4), (96, 97), (3, 95)])
        self.write_style(0)

    def write_coast(self, points: list[tuple[int, int]]) -> None:
        self.write("layers/coast.map", layer("coast", "LINE", [points]))

    def config(self, name: str, tree: Path) -> Path:
        """MapServer's own configuration, which stays on its node: which maps there are."""
        path = self.top / name / "mapserver.conf"
        path.write_text(
            f'CONFIG\n  ENV\n    MS_MAP_PATTERN "^{tree}/"\n  END\n  MAPS\n    CITY "{tree}/city.map"\n  END\nEND\n'
        )
        return path

    def expected(self) -> str:
        """The picture that ``home``'s tree gives now, drawn by MapServer without any node."""
        query = WMS.partition("?")[2]
        done = subprocess.run(
            [program("mapserv", "cgi-mapserver")],
            capture_output=True, timeout=120, check=True,
            env={
                **os.environ, "MAPSERVER_CONFIG_FILE": str(self.top / "home" / "mapserver.conf"),
                "REQUEST_METHOD": "GET", "QUERY_STRING": f"map=CITY&{query}",
            },
        )  # fmt: skip
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        if PNG.encode() not in head:
            raise Failed(f"home's map cannot be drawn: {done.stdout[:300]!r}")
        return sha256(body).hexdigest()[:16]

    # The servers --------------------------------------------------------------------------------------------

    def serve(self, node: Node) -> None:
        """nginx and two MapServer processes for one node."""
        environment = {"MAPSERVER_CONFIG_FILE": str(self.config(node.name, node.tree))}
        mapserv = program("mapserv", "cgi-mapserver")
        log = self.top / node.name / "mapserv.log"
        fastcgi = self.servers.keep(f"MapServer of {node.name}", FastCgi([mapserv], environment, 2, log))
        port = self.ports[node.name] = free_port()
        base = self.top / node.name
        site = (
            f"    server {{\n        listen 127.0.0.1:{port};\n        location /wms {{\n"
            f"            add_header X-Node {node.name} always;\n"
            f"            fastcgi_pass 127.0.0.1:{fastcgi.port};\n"
            "            fastcgi_param REQUEST_METHOD $request_method;\n"
            "            fastcgi_param QUERY_STRING map=CITY&$args;\n        }\n    }\n}\n"
        )
        conf = base / "nginx.conf"
        conf.write_text(nginx_main(base, "nginx") + site)
        nginx = program("nginx", "nginx-light")
        words = [nginx, "-e", str(base / "nginx.log"), "-c", str(conf), "-g", "daemon off;"]
        self.servers.start(f"nginx of {node.name}", words, port, base / "nginx.log")

    def balance(self) -> None:
        """HAProxy with the file that ``instep balancer render`` makes."""
        home = self.fleet.home
        names = [node.name for node in self.fleet.serving]
        places = ", ".join(
            f'{node.name} = {{ http = "127.0.0.1:{self.ports[node.name]}", '
            f'health = "127.0.0.1:{node.health}", agent = "127.0.0.1:{node.agent}" }}'
            for node in self.fleet.serving
        )
        home.add_settings(
            tables=f'[balancers.maps]\nfilesets = ["{FILESET}"]\nnodes = {json.dumps(names)}\naffinity = "off"\n'
            f'http = {{ listen = "127.0.0.1:{self.front}", backend = 80 }}\nbackends = {{ {places} }}\n'
        )
        path = self.top / "haproxy.cfg"
        home.run("balancer", "render", "haproxy", "--output", str(path), "--check")
        words = [program("haproxy", "haproxy"), "-db", "-f", str(path)]
        self.servers.start("HAProxy", words, self.front, self.top / "haproxy.log")

    # The play -----------------------------------------------------------------------------------------------

    def play(self) -> dict[str, Any]:
        began = time.monotonic()
        self.tell("1. home, where maps are made, and three nodes that serve them.")
        self.fleet.make(3, "m")
        home = self.fleet.home
        self.write_map()
        config = str(self.config("home", home.tree))
        params = ["--recipe", "mapserver", "--param", "mapfile=city.map", "--param"]
        home.run(
            "fileset", "add", FILESET, str(home.tree), "--publish", "manual", *params, f"config={config}"
        )
        home.add_settings(
            tables=f'[filesets.{FILESET}.rollout]\nstrategy = "canary"\ncanary_for = "200ms"\nbatch = 1'
        )
        self.fleet.publish("the first map")
        for node in self.fleet.serving:
            self.serve(node)
            at = f"http://127.0.0.1:{self.ports[node.name]}"
            config = str(self.top / node.name / "mapserver.conf")
            self.fleet.join(
                node, "--accept", f"{FILESET}={node.tree}", "--param", f"url={at}/wms?", *params, f"config={config}",
                settings=f'[filesets.{FILESET}.golden]\nurl = "{at}"\n'
                f'[filesets.{FILESET}.golden.requests.coast]\nrequest = "GET {COAST}"',
            )  # fmt: skip
        self.fleet.wait()
        self.good[self.expected()] = "the first map"
        self.tell("2. HAProxy before them, from the membership, and a steady load of map requests.")
        self.balance()
        eventually(lambda: ask(self.front, WMS).status == 200, "the first picture through HAProxy", 60)
        load = Load(self.front, WMS, every_s=0.2)
        load.start()
        try:
            self.roll(load)
            self.break_it(load)
        finally:
            load.stop()
            load.keep(self.top / "requests.log")
        return {**self.report(load), "seconds": round(time.monotonic() - began, 1)}

    def roll(self, load: Load) -> None:
        self.tell(f"3. {self.rollouts} changes of style, each to all nodes.")
        for number in range(1, self.rollouts + 1):
            began, before = time.monotonic(), len(load.answers)
            self.write_style(number)
            picture = self.expected()
            self.good[picture] = f"change {number}"
            self.fleet.publish(f"change {number}")
            self.fleet.wait()
            self.require_picture(picture)
            self.tell(
                f"   change {number}: on every node after {time.monotonic() - began:.1f} s, "
                f"{len(load.answers) - before} requests meanwhile"
            )

    def require_picture(self, picture: str) -> None:
        for node in self.fleet.serving:
            answer = ask(self.ports[node.name], WMS)
            if answer.digest != picture:
                raise Failed(f"{node.name} does not show {self.good[picture]}: {told(answer)}")

    def break_it(self, load: Load) -> None:
        home, nodes = self.fleet.home, self.fleet.serving
        picture = self.expected()
        self.tell("4. A mapfile that is no mapfile: no node lets it go live.")
        self.write("styles/roads.map", "CLAS STYLE COLOUR no END END\n")
        home.run("publish", FILESET, "-m", "no mapfile", expect=4)  # home's own validate refuses it first
        self.write_style(self.rollouts)
        self.tell(
            "5. A mapfile that draws, but serves no WMS: stopped at the first node, and put back there."
        )
        self.write("city.map", CITY.replace(ENABLED, '"wms_enable_request" ""'))
        broken = self.fleet.publish("no WMS")
        line = self.fleet.await_failing(nodes[0], broken, "probe_failed", "probe hook")
        self.require_before(broken, line, picture)
        self.tell("6. A map that serves, but has lost a piece of its coast: the golden answer differs.")
        self.write("city.map", CITY)
        self.write_coast([(2, 2), (98, 4), (3, 95)])
        broken = self.fleet.publish("less coast")
        line = self.fleet.await_failing(nodes[0], broken, "probe_failed", "golden answer")
        self.require_before(broken, line, picture)
        self.tell("7. The map mended, and on every node.")
        self.write_map()
        self.write_style(self.rollouts)
        self.fleet.publish("all coast again")
        self.fleet.wait()
        self.require_picture(picture)

    def require_before(self, broken: int, line: dict[str, Any], picture: str) -> None:
        """The first node says why it went back; no other ever had it; all show what they showed."""
        self.tell(f"   {self.fleet.serving[0].name}: {line['reason']}")
        self.tell(f"   the rollout is put back: {self.fleet.await_put_back(broken)}")
        for node in self.fleet.serving:
            live = node.line(FILESET)["live"]["number"]
            if live >= broken:
                raise Failed(f"{node.name} serves generation {live}, and {broken} is broken")
        self.require_picture(picture)

    def report(self, load: Load) -> dict[str, Any]:
        return {
            "changes": self.rollouts,
            "rollouts": self.fleet.outcomes(),
            "untold": self.fleet.untold(),
            **load.report(PNG, self.good),
        }


if __name__ == "__main__":
    sys.exit(play(__doc__, Example, rollouts=10))
