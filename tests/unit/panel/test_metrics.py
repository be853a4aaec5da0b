"""The text of ``/metrics``: its form, its labels, and its size with a thousand partners."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import msgspec

from instep.api.looking import (
    ConfigDocument,
    FilesetStatusDocument,
    LineDocument,
    PartnerDocument,
    StatusDocument,
)
from instep.api.parts import FullGenerationDocument, GenerationDocument
from instep.panel.metrics import STANDINGS, Beside, metrics_text

ROOT = Path(__file__).parents[3]
HEAD = FullGenerationDocument(1, 42, "aa", "bb", "ana", "x", "2026-11-21T02:31:00Z", 3, 9)
LIVE = GenerationDocument(1, 41, "aa", "bb")
SINCE = "2026-11-21T02:31:00Z"
BESIDE = Beside(2_000_000_000.0, 3, 2, now=1795231920.0)
LINE = re.compile(r'[a-z_]+(\{[a-z]+="(?:[^"\\\n]|\\.)*"(,[a-z]+="(?:[^"\\\n]|\\.)*")*\})? -?[0-9.e+]+')


def status_of(partners: int, standing: str = "behind") -> StatusDocument:
    rows = tuple(
        PartnerDocument(f"s{number:04}", LIVE, "in_step", None, None, SINCE, (), SINCE, 0)
        for number in range(partners)
    )
    line = LineDocument("main", "main", HEAD, LIVE, standing, "why", None, SINCE, (), rows)
    fileset = FilesetStatusDocument("data", "mirror", "metadata", "/srv/data", (line,))
    return StatusDocument("main", "running", ConfigDocument("current"), (fileset,), warnings=("a",))


def test_every_line_is_one_of_the_format_and_every_family_stands_once() -> None:
    text = metrics_text(status_of(2), BESIDE)
    families = re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE)
    assert len(families) == len(set(families)) >= 15
    for line in text.splitlines():
        assert line.startswith(("# HELP ", "# TYPE ")) or LINE.fullmatch(line), line
    assert 'instep_generation_head{fileset="data",origin="main"} 42' in text
    assert 'instep_standing{fileset="data",standing="behind"} 1' in text
    assert text.count("instep_standing{") == len(STANDINGS)
    assert 'instep_behind_seconds{fileset="data"} 3660' in text
    assert "instep_audit_denied_total 3\n" in text and "instep_panel_streams 2\n" in text
    for hidden in ("/srv/data", "ana", "why", '"aa"'):
        assert hidden not in text, "no path, person or digest"


def test_a_hostile_standing_is_no_label() -> None:
    status = status_of(1)
    line = status.filesets[0].lines[0]
    odd = PartnerDocument('s"\n1', LIVE, 'x"} 1\nevil 1', None, None, SINCE, (), SINCE, 0)
    fileset = FilesetStatusDocument(
        "data",
        "mirror",
        "metadata",
        "/",
        (LineDocument("main", "main", HEAD, LIVE, "in_step", None, None, SINCE, (), (odd,)),),
    )
    text = metrics_text(StatusDocument("main", "running", status.config, (fileset,)), BESIDE)
    assert "\nevil" not in text and line.partners
    assert 'partner="s\\"\\n1",standing="unknown"' in text
    assert all(each.startswith("#") or LINE.fullmatch(each) for each in text.splitlines())


def test_a_thousand_partners_stay_small() -> None:
    text = metrics_text(status_of(1_000), BESIDE)
    assert text.count("instep_partner_standing{") == 1_000
    assert len(text) < 250_000


def test_events_are_counted_by_kind_and_those_of_hidden_filesets_are_not_told() -> None:
    noted = {("published", "data"): 3, ("published", "secret"): 9, ("link_up", ""): 2}
    text = metrics_text(status_of(0), replace(BESIDE, noted=noted))
    told = [line for line in text.splitlines() if line.startswith("instep_events_total{")]
    assert told == [
        'instep_events_total{kind="link_up",fileset=""} 2',
        'instep_events_total{kind="published",fileset="data"} 3',
    ]


def test_the_dashboard_asks_for_families_and_labels_that_are_there() -> None:
    text = metrics_text(status_of(1), replace(BESIDE, noted={("published", "data"): 1}))
    families = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    labels = set(re.findall(r'[{,](\w+)="', text)) | {"instance", "state"}
    dashboard = msgspec.json.decode((ROOT / "packaging/grafana/instep.json").read_bytes())
    asked = [
        (each["expr"], each["legendFormat"]) for panel in dashboard["panels"] for each in panel["targets"]
    ]
    for expression, legend in asked:
        found = set(re.findall(r"instep_\w+", expression))
        assert found and found <= families, expression
        assert (
            set(re.findall(r"(\w+)!?=~?\"", expression)) | set(re.findall(r"{{(\w+)}}", legend)) <= labels
        ), expression
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
