"""Golden answers in ``instep.toml``: the values read, and every problem with its line and value."""

from __future__ import annotations

import sys

import pytest

from instep.errors import ConfigError
from instep.model.ids import FilesetName
from instep.node.config.loading import parse

EXAMPLE = """
name = "main"

[partners.s1]
replicate = true

[filesets.docs]
path = "/srv/docs"
writer = "s1"
"""
GOLDEN = (
    EXAMPLE
    + """
[filesets.docs.golden]
url = "http://localhost:8080/"
balancer = "https://maps.example.org"
retries = 2
headers_file = "/etc/instep/headers"

[filesets.docs.golden.requests.map]
request = "GET /wms?layers=a"
compare = "status"

[filesets.docs.golden.requests.find]
request = "POST /csw"
body = "<GetRecords/>"
ignore = ['timestamp="[^"]*"']
changes = "expected"
"""
)


def test_golden_answers_are_read() -> None:
    golden = parse(GOLDEN).filesets[FilesetName("docs")].golden
    assert (golden.url, golden.balancer, golden.retries) == (
        "http://localhost:8080",
        "https://maps.example.org",
        2,
    )
    one, other = golden.requests
    assert (one.name, one.method, one.path, one.compare, one.expect_status) == (
        "map",
        "GET",
        "/wms?layers=a",
        "status",
        200,
    )
    assert (other.body, other.is_change_expected, other.ignore) == (
        "<GetRecords/>",
        True,
        ('timestamp="[^"]*"',),
    )


@pytest.mark.parametrize(
    ("old", "new", "problems"),
    [
        (
            'url = "http://localhost:8080/"',
            'url = "http://maps:8080"',
            ["golden.url: is plain http to another machine"],
        ),
        (
            'url = "http://localhost:8080/"',
            'url = "http://a:b@localhost"',
            ["golden.url: has a user or password"],
        ),
        ('url = "http://localhost:8080/"', 'url = "localhost:8080"', ["golden.url: is not a URL"]),
        (
            'compare = "status"',
            'compare = "near"\nexpect_status = 99',
            ["map.expect_status: is not", "map.compare: is not one"],
        ),
        (
            'compare = "status"',
            "tolerance = 3",
            ["map.tolerance: goes with compare = image, not with digest"],
        ),
        ('"GET /wms?layers=a"', '"HEAD /wms"\nbody = "x"', ["map.body: goes with POST, not with HEAD"]),
        ('"GET /wms?layers=a"', '"GET wms"', ["map.request: is not GET, HEAD or POST and a path"]),
        ("""'timestamp="[^"]*"'""", "'('", ["find.ignore: holds '(', which is not a regular expression"]),
        ("requests.find", "requests.'no space'", ["no space: is not a name"]),
        ("/etc/instep/headers", "/srv/docs/headers", ["golden.headers_file: lies in the fileset"]),
        ("retries = 2", "retry = 2", ["golden.retry: is not a known key; did you mean retries?"]),
    ],
)
def test_what_is_wrong_with_golden_answers_is_told(old: str, new: str, problems: list[str]) -> None:
    assert GOLDEN.count(old) == 1
    text = GOLDEN.replace(old, new)
    with pytest.raises(ConfigError) as caught:
        parse(text)
    found = caught.value.facts["problems"]
    assert isinstance(found, list) and len(found) == len(problems), found
    for each, wanted in zip(sorted(found, key=lambda p: -p["line"]), problems, strict=True):
        key, _, why = wanted.partition(": ")
        assert each["key"].endswith(key) and each["why"].startswith(why), each
        assert each["line"] > EXAMPLE.count("\n")


def test_pictures_need_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ConfigError) as caught:
        parse(GOLDEN.replace('compare = "status"', 'compare = "image"'))
    assert "pip install 'instep[images]'" in str(caught.value.facts["problems"])
