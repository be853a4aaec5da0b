"""The values that the golden tests of the configuration try at every key, and the document around each table of
keys."""

from __future__ import annotations

from collections.abc import Mapping

# Values that are tried at every key, as TOML.
TRIED = r"""
"" | "x" | "/x" | "/a/../b" | "a/b" | "a\u0000b" | 0 | 1 | -1 | 255 | 256 | 404 | 8080 | 65536 | 1.5 | true | false
[] | ["x"] | [1] | ["/x"] | ["a", "a/b"] | ["a", "a"] | {} | { x = 1 } | 2020-01-01
"mirror" | "off" | "auto" | "manual" | "on" | "keep" | "offer" | "exchange" | "shared" | "data" | "secret" | "backend" | "nginx" | "expected"
"strict" | "none" | "viewer" | "terminate" | "canary" | "wait" | "stop" | "source" | "image" | "HUP" | "digest"
"https://login.example.org/realms/main" | ["openid", "groups"] | "up" | "left" | "revert" | "xml" | "site@s1" | "site@" | "a b@s1"
"5s" | "1.5h" | "0" | "5 weeks" | "50%" | "50.5%" | "x%" | "101%" | "0%" | "20MiB/s" | "1B" | "2KiB"
"h:80" | "[::1]:80" | "::1:80" | "a b:80" | "h" | "h:0" | "10.0.0.5:8081" | "0.0.0.0:7443"
["10.0.0.0/8"] | ["10.0.0.1/8"] | ["host"] | ["s1"] | ["main"] | ["A b"] | ["s1", "s1"]
["owner"] | ["sparse", "owner"] | ["setuid"] | ["a**b**c**d**e"] | ["(x"] | ["version", "version >="] | ["version ~"]
"GET http://localhost/" | "FETCH http://localhost/" | "GET http://a:b@localhost/" | "POST https://far/"
"http://localhost:80/" | "http://[h" | "http://a:b@h" | "http://h/?q" | "GET /wms?x" | "PUT /wms" | "HEAD /" | "GET wms"
["/bin/true", "a"] | ["true"] | ["/bin/check", "{file}"] | "reload apache2.service" | "stop x" | "reload a b"
"([0-9]" | "root" | "0root" | "nfs4" | "nfs4 on /mnt" | "any on mnt" | "a b"
{ unit = "x.service" } | { pid_file = "/run/x" } | { user = "a b" } | { unit = "a", user = "b" }
{ s1 = "h:80" } | { s1 = "a b" } | { "A b" = "h" } | { http = "h:80" } | { htp = "h:80" } | { s1 = { http = "h:80" } }
"log /dev/log" | ["log /dev/log"] | ["a\nb"] | "/wms?x=1" | "/a//b" | "/a b"
"15 2 * * *" | "*/10 * * * * *" | "0 0 30 2 *" | "0 24 * * *" | "UTC" | "Europe/Berlin" | "Europe" | "/etc/localtime" | "latest" | "rerun"
"index" | "fold" | "authorized" | ["lic1:27000", "lic2:27000"]
"ab:cd" | "sha256:0000000000000000000000000000000000000000000000000000000000000000" | ".instep/x" | "../x"
"""
WRITTEN = 'name = "main"\n[filesets.maps]\npath = "/srv/maps"\nwriter = "main"\n'
LISTENS = 'http = { listen = "0.0.0.0:80", backend = 8080 }\n'
BALANCER = WRITTEN + "[balancers.maps]\n"
JOB = 'name = "main"\n[jobs.reindex]\n'
REQUEST = 'name = "main"\n[requests.import]\n'
BACKUP = '[backup]\nto = "/backup"\nfilesets = ["maps"]\n'
POOL = 'name = "main"\n[pools.editors]\n'
KIND = 'name = "main"\n[sync.site]\nleft = "site@main"\nright = "site@p1"\n[sync.site.kinds.templates]\n'
SECTIONS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "The node": ("", {"": 'name = "main"\n', "name": ""}),
    "Partners": ("", {"": 'name = "main"\n[partners.s1]\nreplicate = true\n', "replicate": 'name = "main"\n[partners.s1]\n'}),
    "Filesets": (
        "",
        {
            "": WRITTEN, "path": 'name = "main"\n[filesets.maps]\nwriter = "main"\n',
            "writer": 'name = "main"\n[filesets.maps]\npath = "/srv/maps"\n',
            "observe": 'name = "main"\n[filesets.maps]\npath = "/srv/maps"\nwriter = "s1"\n',
        },
    ),
    "Archive": ("[filesets.maps.archive]\n", {"": WRITTEN}),
    "Hooks": (
        "[filesets.maps.hooks.validate]\n",
        {
            "": WRITTEN + '[filesets.maps.hooks.validate]\nhttp = "GET http://localhost/"\n',
            **dict.fromkeys(("run", "http", "touch", "systemd"), WRITTEN + "[filesets.maps.hooks.validate]\n"),
            **dict.fromkeys(("user", "tree"), WRITTEN + '[filesets.maps.hooks.validate]\nrun = ["/bin/true"]\n'),
            "signal": WRITTEN + '[filesets.maps.hooks.validate]\npid_file = "/run/x"\n',
            "pid_file": WRITTEN + '[filesets.maps.hooks.validate]\nsignal = "HUP"\n',
        },
    ),
    "Golden answers": (
        "",
        {
            "": WRITTEN + '[filesets.maps.golden]\nurl = "http://localhost"\nrequests = { a = { request = "GET /" } }\n',
            "url": WRITTEN + '[filesets.maps.golden]\nrequests = { a = { request = "GET /" } }\n',
        },
    ),
    "Golden requests": (
        "",
        {
            "": WRITTEN + '[filesets.maps.golden]\nurl = "http://localhost"\n'
            '[filesets.maps.golden.requests.a]\nrequest = "GET /"\n',
            "request": WRITTEN + '[filesets.maps.golden]\nurl = "http://localhost"\n[filesets.maps.golden.requests.a]\n',
        },
    ),
    "Parts that are not carried": (
        "",
        {
            "": WRITTEN + '[[filesets.maps.external]]\nname = "db"\n',
            "name": WRITTEN + "[[filesets.maps.external]]\n",
        },
    ),
    "Copies wanted": (
        "",
        {
            "": WRITTEN + '[[filesets.maps.copies]]\npaths = ["*.xml"]\n',
            "paths": WRITTEN + "[[filesets.maps.copies]]\n",
        },
    ),
    "Rollout": ("[filesets.maps.rollout]\n", {"": WRITTEN}),
    "Facts": ("", {"": 'name = "main"\n[facts.x]\n', "match": 'name = "main"\n[facts.x]\nfile = "/x"\n'}),
    "Balancers": (
        "",
        {
            "": BALANCER + LISTENS + 'file = "/etc/x.cfg"\nfilesets = ["maps"]\n',
            "file": BALANCER + LISTENS + 'filesets = ["maps"]\n',
            "filesets": BALANCER + LISTENS,
        },
    ),
    "Sync profiles": (
        "",
        {
            "": 'name = "main"\n[sync.site]\nleft = "site@main"\nright = "site@p1"\n',
            "left": 'name = "main"\n[sync.site]\nright = "site@p1"\n',
            "right": 'name = "main"\n[sync.site]\nleft = "site@main"\n',
        },
    ),
    "Kinds of a sync profile": (
        "[sync.site.kinds.templates]\n",
        {
            "": KIND + 'paths = ["/templates/"]\n',
            "paths": KIND,
        },
    ),
    "Notices": ("", {"": 'name = "main"\n[notify.ops]\nsend = { run = ["/bin/true"] }\n'}),
    "Signing in by a provider": (
        "[oidc]\n",
        {
            "": 'name = "main"\n[oidc]\nissuer = "https://login.example.org"\nclient_id = "instep"\n',
            "issuer": 'name = "main"\n[oidc]\nclient_id = "instep"\n',
            "client_id": 'name = "main"\n[oidc]\nissuer = "https://login.example.org"\n',
        },
    ),
    "A balancer's ports": (
        "[balancers.maps.https]\n",
        {
            "": BALANCER + 'filesets = ["maps"]\n[balancers.maps.https]\nlisten = "0.0.0.0:443"\nbackend = 8443\n',
            "listen": BALANCER + 'filesets = ["maps"]\n[balancers.maps.https]\nbackend = 8443\n',
            "backend": BALANCER + 'filesets = ["maps"]\n[balancers.maps.https]\nlisten = "0.0.0.0:443"\n',
            **dict.fromkeys(
                ("certificate", "key"),
                BALANCER + 'filesets = ["maps"]\n[balancers.maps.https]\nlisten = "0.0.0.0:443"\nbackend = 8443\n'
                'tls = "terminate"\n',
            ),
        },
    ),
    "Jobs": (
        "",
        {
            "": JOB + 'cron = "15 2 * * *"\nrun = ["/bin/true"]\n', "cron": JOB + 'run = ["/bin/true"]\n',
            "run": JOB + 'cron = "15 2 * * *"\n',
        },
    ),
    "Requests": ("", {"": REQUEST + 'run = ["/bin/true"]\n', "run": REQUEST}),
    "Standby services": ("", {"": 'name = "main"\n[standby.app]\n'}),
    "Backups": (
        "",
        {
            "": WRITTEN + BACKUP,
            "to": WRITTEN + '[backup]\nfilesets = ["maps"]\n',
            "filesets": WRITTEN + '[backup]\nto = "/backup"\ndatabase = { pg_dump = "/etc/app" }\n',
        },
    ),
    "The database of a backup": ("[backup.database]\n", {"": WRITTEN + BACKUP}),
    "Pools": ("", {"": POOL + "places = 50\n", "places": POOL}),
    "A node's place": ("[balancers.maps.address]\n", {"": BALANCER}),
}  # fmt: skip
