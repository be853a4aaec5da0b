"""The script that plants faults: every kind finds its places, what no promise is about is left out, draws are fair."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from tests.mutants.drawing import candidates, chosen
from tests.mutants.floors import ROOMS
from tests.mutants.kinds import KINDS, faults_in, planted

SAMPLE = '''
LIMIT = 5

class Example:
    def step(self, event: int, now_ms: int) -> None:
        """Words."""
        if event < 3 and self.other == 2:
            return
        self.count = event + 1
        self.act(event, self.count)
        log.info("seen %d", event + 1)
        if now_ms > self.until_ms or event > LIMIT or self.fd >= 0:
            self.is_late = True
        try:
            self.act(event, now_ms)
        except OSError as error:
            raise ValueError(f"{event + 1} of {self.count - 1}") from error

    def __repr__(self) -> str:
        return "x" if self.count < 3 else "y"
'''


def test_every_kind_has_its_places_and_each_leaves_a_module_that_compiles() -> None:
    found = faults_in(SAMPLE)
    assert {fault.kind for fault in found} == set(KINDS)
    for fault in found:
        changed = planted(SAMPLE, fault)
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(SAMPLE)), fault


def test_texts_the_log_and_edges_that_nobody_promised_are_left_out() -> None:
    lines = SAMPLE.splitlines()
    touched = {lines[fault.begin[0] - 1].strip() for fault in faults_in(SAMPLE)}
    assert not {
        line for line in touched if line.startswith(("log.", "return", "LIMIT", "raise ValueError(f"))
    } - {
        'raise ValueError(f"{event + 1} of {self.count - 1}") from error'  # the error itself can be swallowed
    }
    edges = [lines[fault.begin[0] - 1].strip() for fault in faults_in(SAMPLE) if fault.kind == "boundary"]
    assert edges == ["if event < 3 and self.other == 2:"]


def test_a_seed_draws_the_same_again_and_every_room_and_kind_has_its_share(tmp_path: Path) -> None:
    for room in ROOMS:
        (tmp_path / room).mkdir()
        for name in "abcdefgh":
            (tmp_path / room / f"{name}.py").write_text(SAMPLE)
    pool = candidates(tmp_path, 1, 10, tuple(ROOMS))
    assert pool == candidates(tmp_path, 1, 10, tuple(ROOMS))
    assert pool != candidates(tmp_path, 2, 10, tuple(ROOMS))
    everything = {(each.module, each.line): True for mutants in pool.values() for each in mutants}
    drawn = chosen(pool, everything, 40)
    assert Counter(each.room for each in drawn) == dict.fromkeys(ROOMS, 10)
    assert max(Counter(each.fault.kind for each in drawn).values()) <= len(ROOMS) * 2
    reached = dict(list(everything.items())[::2])
    assert all((each.module, each.line) in reached for each in chosen(pool, reached, 40))
