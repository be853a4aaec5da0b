"""Several persons become one author, and each is found in it again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instep.core.authors import AUTHOR_MAX, by_token, joined, persons_of
from instep.core.publish.state import sharing
from instep.core.publish.vocabulary import PublishAsked

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", fullmatch=True).filter(
    lambda name: name != "auto"
)
CALLERS = st.one_of(NAMES, st.builds(by_token, NAMES, NAMES))


@given(st.lists(st.tuples(NAMES, NAMES, st.integers(0, 4)), max_size=6))
def test_each_person_of_a_joined_author_is_found_again(given: list[tuple[str, str, int]]) -> None:
    forms = (
        lambda a, b: (a, {a}),
        lambda a, b: (by_token(a, b), {a}),
        lambda a, b: (f"{a}, by {b}", {a, b}),
        lambda a, b: (f"auto, files of {a}", {a}),
        lambda a, b: (f"s1: {by_token(a, b)}", {a}),
    )
    made = [forms[form](a, b) for a, b, form in given]
    assert persons_of(joined(text for text, _ in made)) == set().union(*(persons for _, persons in made))


@given(st.lists(CALLERS, min_size=1, max_size=12))
def test_a_run_takes_as_many_requests_as_its_generation_can_name(callers: list[str]) -> None:
    requests = [PublishAsked(number, name) for number, name in enumerate(callers)]
    shared = sharing(requests)
    assert shared == tuple(requests[: len(shared)]) and shared
    assert len(joined(one.author for one in shared)) <= AUTHOR_MAX
    if len(shared) < len(requests):
        assert len(joined(one.author for one in requests[: len(shared) + 1])) > AUTHOR_MAX


def test_a_request_that_only_asks_what_would_be_shares_no_run() -> None:
    publish, dry = PublishAsked(1, "ana"), PublishAsked(2, is_dry_run=True)
    assert (sharing([publish, dry]), sharing([dry, publish])) == ((publish,), (dry,))
