"""The worked example of a replication network (M13), as the table that ``explain`` is made of, byte for byte."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from instep.core.reach import TABLE_CLASSES, PartnerRows, reach, reach_table
from instep.model.definition import FilesetClass
from instep.model.ids import NodeName
from instep.model.link import Link

EXPECTED = Path(__file__).parent / "reach" / "worked_example.txt"
ALPHA, GAMMA, LAMDA = NodeName("alpha"), NodeName("gamma"), NodeName("lamda")
WORKED_EXAMPLE: PartnerRows = {
    ALPHA: {GAMMA: Link(replicate=False, data=True), LAMDA: Link(replicate=True)},
    GAMMA: {ALPHA: Link(), LAMDA: Link(replicate=True, data=True)},
    LAMDA: {ALPHA: Link(replicate=True, data=True, hub=True), GAMMA: Link()},
}
NAMES = [NodeName(name) for name in "abcd"]


def test_the_worked_example_is_printed_as_expected() -> None:
    assert reach_table(WORKED_EXAMPLE) == EXPECTED.read_text(encoding="utf-8")


def test_the_worked_example_says_what_the_manual_says() -> None:
    found = {
        (each.home, each.node, of): each.via
        for home in WORKED_EXAMPLE
        for of in TABLE_CLASSES
        for each in reach(WORKED_EXAMPLE, home, of)
        if each.gets
    }
    both = (FilesetClass.METADATA, FilesetClass.DATA)
    assert found == {
        **{(GAMMA, LAMDA, of): (GAMMA,) for of in both},
        **{(GAMMA, ALPHA, of): (GAMMA, LAMDA) for of in both},
        **{(LAMDA, ALPHA, of): (LAMDA,) for of in both},
        (ALPHA, LAMDA, FilesetClass.METADATA): (ALPHA,),
    }


links = st.builds(Link, st.booleans(), st.booleans(), st.booleans())
topologies = st.fixed_dictionaries(
    {name: st.dictionaries(st.sampled_from([n for n in NAMES if n != name]), links) for name in NAMES}
)


@given(topologies, st.sampled_from(NAMES), st.sampled_from(FilesetClass))
def test_a_document_gets_where_a_walk_over_the_rows_gets(
    rows: dict[NodeName, dict[NodeName, Link]], home: NodeName, of: FilesetClass
) -> None:
    """The naive twin: pass on until nothing changes."""
    has = {home}
    for _ in NAMES:
        for sender in NAMES:
            for receiver, link in rows[sender].items():
                is_listed = sender in rows[receiver]
                lets = (
                    link.replicate
                    and (link.data or of is not FilesetClass.DATA)
                    and (sender == home or (link.hub and of is not FilesetClass.SECRET))
                )
                if sender in has and is_listed and lets:
                    has.add(receiver)
    found = reach(rows, home, of)
    assert {each.node for each in found if each.gets} == has - {home}
    assert [each.node for each in found] == [name for name in NAMES if name != home]
    for each in found:
        assert each.why
        assert (each.via[:1] == (home,)) == each.gets
        for sender, receiver in zip(each.via, (*each.via[1:], each.node), strict=False):
            assert rows[sender][receiver].lets(of, own_line=sender == home)
    reach_table(rows)
