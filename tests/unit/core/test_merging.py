"""Files that both sides changed: which merge, which must not, and hostile ones."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.core.sync.merge import json_text, properties_text, xml_text
from instep.core.sync.merge.document import UncleanMergeError
from instep.core.sync.merge.formats import SIZE_MAX, MergeFormat, merge_file
from instep.core.sync.mergeable import MergeCandidate, merged_entry
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Extra, Kind

XML, JSON, PROPERTIES, LINES = MergeFormat.XML, MergeFormat.JSON, MergeFormat.PROPERTIES, MergeFormat.LINES

STORE = b"""<dataStore>
  <id>DataStoreInfoImpl-1</id>
  <name>roads</name>
  <!-- the pool -->
  <connectionParameters>
    <entry key="host">db1</entry>
    <entry key="port">5432</entry>
    <entry key="max connections">10</entry>
  </connectionParameters>
  <srs>
    <string>EPSG:4326</string>
    <string>EPSG:3857</string>
  </srs>
</dataStore>
"""
"""A data store as GeoServer writes it."""

SERVER = b"""<?xml version="1.0" encoding="UTF-8"?>
<Server port="8005" shutdown="SHUTDOWN">
  <Listener className="org.apache.catalina.startup.VersionLoggerListener" />
  <Listener className="org.apache.catalina.core.JreMemoryLeakPreventionListener" />
  <Service name="Catalina">
    <Connector port="8080" protocol="HTTP/1.1"
               connectionTimeout="20000" />
    <Engine name="Catalina" defaultHost="localhost">
      <Host name="localhost" appBase="webapps" />
    </Engine>
  </Service>
</Server>
"""
"""A server file as Tomcat ships it."""

SITE = b"""{
  "name": "site",
  "languages": ["en", "de"],
  "menus": [
    {"id": "main", "depth": 2},
    {"id": "foot", "depth": 1}
  ],
  "cache": {"minutes": 5, "on": true}
}
"""

WEB_CONFIG = (
    b"\xef\xbb\xbf"
    + b"""<?xml version="1.0" encoding="utf-8"?>
<configuration>
  <connectionStrings>
    <add name="Cms" providerName="System.Data.SqlClient" connectionString="server=db1;database=cms" />
  </connectionStrings>
  <appSettings>
    <add key="sitePath" value="/" />
    <!-- mail -->
    <add key="SmtpServer" value="localhost" />
    <add key="SmtpPort" value="25" />
  </appSettings>
  <runtime>
    <assemblyBinding xmlns="urn:schemas-microsoft-com:asm.v1">
      <dependentAssembly>
        <assemblyIdentity name="Newtonsoft.Json" culture="neutral" />
        <bindingRedirect oldVersion="0.0.0.0-6.0.0.0" newVersion="6.0.0.0" />
      </dependentAssembly>
    </assemblyBinding>
  </runtime>
</configuration>
""".replace(b"\n", b"\r\n")
)
"""The settings of a CMS under ASP.NET, with a byte order mark and the ends of lines of Windows."""

PACKAGES = b"""{
    "name": "site/cms",
    "require": {
        "php": ">=8.1",
        "drupal/core": "10.1.0",
        "drupal/token": "^1.11"
    }
}
"""
"""The packages of a CMS as Composer writes them."""

SETTINGS = b"""# the site
site.name=First
site.url = https://www.example.org

! mail
mail.host: localhost
mail.text=one \\
  two
"""


def _with(raw: bytes, *changes: tuple[bytes, bytes]) -> bytes:
    for old, new in changes:
        assert raw.count(old) == 1, old
        raw = raw.replace(old, new)
    return raw


Change = tuple[bytes, bytes]

MERGES: dict[str, tuple[MergeFormat, bytes, Change, Change]] = {
    "two parameters of a store": (XML, STORE, (b">db1<", b">db2<"), (b">10<", b">20<")),
    "a parameter more beside a changed one": (
        XML,
        STORE,
        (b">db1<", b">db2<"),
        (b'    <entry key="port">', b'    <entry key="ssl">on</entry>\n    <entry key="port">'),
    ),
    "a parameter less beside a changed one": (
        XML,
        STORE,
        (b'    <entry key="port">5432</entry>\n', b""),
        (b">db1<", b">db2<"),
    ),
    "one of a list more on each side": (
        XML,
        STORE,
        (
            b"    <string>EPSG:4326</string>\n",
            b"    <string>EPSG:25832</string>\n    <string>EPSG:4326</string>\n",
        ),
        (b"  </srs>", b"    <string>EPSG:2056</string>\n  </srs>"),
    ),
    "a comment beside a value": (XML, STORE, (b"the pool", b"the pool of roads"), (b">db1<", b">db2<")),
    "an attribute of the parent beside a child": (
        XML,
        SERVER,
        (b'shutdown="SHUTDOWN"', b'shutdown="off"'),
        (b'connectionTimeout="20000"', b'connectionTimeout="5000"'),
    ),
    "a connector more beside a host": (
        XML,
        SERVER,
        (b"    <Engine name", b'    <Connector port="8443" SSLEnabled="true" />\n    <Engine name'),
        (b'appBase="webapps"', b'appBase="/srv/webapps"'),
    ),
    "two settings of a CMS": (XML, WEB_CONFIG, (b"localhost", b"mail"), (b'"25"', b'"587"')),
    "a setting more of a CMS on each side": (
        XML,
        WEB_CONFIG,
        (b'    <add key="SmtpPort"', b'    <add key="SmtpUser" value="a" />\r\n    <add key="SmtpPort"'),
        (b"  </appSettings>", b'    <add key="Theme" value="b" />\r\n  </appSettings>'),
    ),
    "a binding beside a connection": (
        XML,
        WEB_CONFIG,
        (b'newVersion="6.0.0.0"', b'newVersion="7.0.0.0"'),
        (b"server=db1", b"server=db2"),
    ),
    "two packages": (JSON, PACKAGES, (b"10.1.0", b"10.2.0"), (b"1.11", b"1.13")),
    "two keys": (JSON, SITE, (b'"site"', b'"shop"'), (b'"minutes": 5', b'"minutes": 9')),
    "a key more beside a changed one": (
        JSON,
        SITE,
        (b'"on": true}', b'"on": true, "where": "ram"}'),
        (b'"minutes": 5', b'"minutes": 9'),
    ),
    "two elements with names": (JSON, SITE, (b'"depth": 2', b'"depth": 3'), (b'"depth": 1', b'"depth": 4')),
    "two properties": (PROPERTIES, SETTINGS, (b"First", b"Second"), (b"two", b"three")),
    "a property with its comment beside another": (
        PROPERTIES,
        SETTINGS,
        (b"\n! mail\n", b"\n# a port\nport=1\n\n! mail\n"),
        (b"localhost", b"mail.example.org"),
    ),
    "lines that do not touch": (LINES, SETTINGS, (b"First", b"Second"), (b"localhost", b"mail")),
}


@pytest.mark.parametrize("name", MERGES)
def test_changes_in_different_places_merge(name: str) -> None:
    """Goal: both changes are in the outcome, every other byte is as it was, and the sides may be exchanged."""
    form, base, ours, theirs = MERGES[name]
    left, right = _with(base, ours), _with(base, theirs)
    assert merge_file(form, base, left, right) == _with(base, ours, theirs)
    assert merge_file(form, base, right, left) == _with(base, ours, theirs)


COLLISIONS: dict[str, tuple[MergeFormat, bytes, Change, Change]] = {
    "one setting of a CMS": (XML, WEB_CONFIG, (b"localhost", b"mail1"), (b"localhost", b"mail2")),
    "one value": (XML, STORE, (b">db1<", b">db2<"), (b">db1<", b">db3<")),
    "a value that the other removed": (
        XML,
        STORE,
        (b">db1<", b">db2<"),
        (b'    <entry key="host">db1</entry>\n', b""),
    ),
    "one key added twice": (JSON, SITE, (b'"cache"', b'"a": 1, "cache"'), (b'"cache"', b'"a": 2, "cache"')),
    "a list without names": (JSON, SITE, (b'"en", ', b""), (b'"de"', b'"de", "fr"')),
    "a changed order beside a value": (
        XML,
        b"<a><b>1</b><c>2</c></a>",
        (b"<b>1</b><c>2</c>", b"<c>2</c><b>1</b>"),
        (b">2<", b">3<"),
    ),
    "text between elements": (
        XML,
        b"<p>one <b>two</b> three <i>four</i></p>",
        (b"one", b"1"),
        (b"four", b"4"),
    ),
    "one property": (PROPERTIES, SETTINGS, (b"First", b"Second"), (b"First", b"Third")),
    "one comment": (PROPERTIES, SETTINGS, (b"# the site", b"# a site"), (b"# the site", b"# my site")),
    "lines that touch": (LINES, b"1\n2\n3\n4\n", (b"2", b"two"), (b"3", b"three")),
}


@pytest.mark.parametrize("name", COLLISIONS)
def test_changes_in_one_place_do_not_merge(name: str) -> None:
    form, base, ours, theirs = COLLISIONS[name]
    with pytest.raises(UncleanMergeError):
        merge_file(form, base, _with(base, ours), _with(base, theirs))


HOSTILE: dict[str, tuple[MergeFormat, bytes]] = {
    "entities that grow": (
        XML,
        b'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><a>&c;</a>',
    ),
    "a file as an entity": (XML, b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'),
    "deep elements": (XML, b"<a>" * 10_000 + b"</a>" * 10_000),
    "another encoding": (XML, b'<?xml version="1.0" encoding="ISO-8859-1"?><a>\xe4</a>'),
    "UTF-16": (XML, "<a>1</a>".encode("utf-16")),
    "an open element": (XML, b"<a><b></a>"),
    "no XML": (XML, b"\x00\x01"),
    "deep lists": (JSON, b"[" * 100_000 + b"]" * 100_000),
    "deep objects": (JSON, b'{"a":' * 500 + b"1" + b"}" * 500),
    "a key twice": (JSON, b'{"a": 1, "a": 2}'),
    "no UTF-8": (JSON, b'{"a": "\xff"}'),
    "comments": (JSON, b'{"a": 1 /* one */}'),
    "a property twice": (PROPERTIES, b"a=1\na=2\n"),
    "sections": (PROPERTIES, b"[one]\na=1\n"),
    "zeros": (LINES, b"\0"),
    "too many lines": (LINES, b"\n" * 20_001),
    "equal lines": (LINES, b"x\n" * 20_000),
    "too many bytes": (LINES, b"x" * (SIZE_MAX + 1)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_collisions(name: str) -> None:
    form, raw = HOSTILE[name]
    good = {XML: b"<a>1</a>", JSON: b"{}", PROPERTIES: b"a=1\n", LINES: b"1\n"}[form]
    for three in ((good, raw, good + b" "), (raw, good, good + b"\n"), (good, good + b"\n", raw)):
        with pytest.raises(UncleanMergeError):
            merge_file(form, *three)


@pytest.mark.parametrize("raw", [STORE, SERVER, b"\xef\xbb\xbf<a/>\n<!-- end -->", b"<a><![CDATA[<b>]]></a>"])
def test_xml_is_written_as_it_was_read(raw: bytes) -> None:
    assert xml_text.read(raw).written() == raw


@pytest.mark.parametrize("raw", [SETTINGS, SETTINGS.replace(b"\n", b"\r\n"), b"", b"\n\n", b"a", b"#x"])
def test_properties_are_written_as_they_were_read(raw: bytes) -> None:
    assert properties_text.read(raw).written() == raw


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=2), VALUES, max_size=5)


@given(OBJECTS, st.sampled_from([None, 1, "\t"]))
def test_json_is_written_as_it_was_read(found: dict[str, object], indent: int | str | None) -> None:
    raw = json.dumps(found, indent=indent).encode()
    assert json_text.read(raw).written() == raw


@given(OBJECTS, OBJECTS, OBJECTS)
def test_keys_of_json_merge_as_a_dictionary_does(
    base: dict[str, object], ours: dict[str, object], theirs: dict[str, object]
) -> None:
    """Goal: each side changes, adds and removes keys of its own; the outcome has all of it."""
    left_keys = {key for key in base | ours if len(key) % 2}
    left = {key: value for key, value in base.items() if key not in left_keys or key in ours}
    left |= {key: value for key, value in ours.items() if key in left_keys}
    right = {key: value for key, value in base.items() if key in left_keys or key in theirs}
    right |= {key: value for key, value in theirs.items() if key not in left_keys}
    wanted = {key: value for key, value in left.items() if key in left_keys}
    wanted |= {key: value for key, value in right.items() if key not in left_keys}
    raw = merge_file(JSON, *(json.dumps(each, indent=1).encode() for each in (base, left, right)))
    assert json.loads(raw) == wanted


def _entry(mode: int, mtime_ns: int, born_ms: int, extra: Extra | None = None) -> Entry:
    return Entry(b"a.xml", Kind.FILE, mode, 1, mtime_ns, Digest(bytes([mtime_ns]) * 32), born_ms, extra)


def test_an_entry_is_merged_alike_when_one_side_has_the_merged_file() -> None:
    """Goal: the older birth, the newer time, and each bit of the rights as the side has it that changed it."""
    base = _entry(0o644, 1, 5)
    for left, right, mode in (
        (_entry(0o644, 3, 5), _entry(0o600, 2, 4), 0o600),
        (_entry(0o664, 2, 4), _entry(0o755, 3, 5), 0o775),
    ):
        merged = merged_entry(MergeCandidate(XML, base, left, right), 9, Digest(b"m" * 32), None)
        assert (merged.mode, merged.mtime_ns, merged.born_ms) == (mode, 3, 4)
        for sides in ((left, merged), (merged, right)):
            assert merged_entry(MergeCandidate(XML, base, *sides), 9, merged.digest, None) == merged
    owners = [_entry(0o644, at, 5, Extra(owner=name)) for at, name in enumerate(("a", "b", "c"))]
    with pytest.raises(UncleanMergeError, match="owner"):
        merged_entry(MergeCandidate(XML, *owners), 9, Digest(b"m" * 32), None)
