"""Programs of thousands of launches: the time to record grows with their number, not with its square."""

import time
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

import rl_lab as rl
from rl_lab.engine.passes import _Uses, is_dead
from rl_lab.native.primitive import In, InOut, Out

spans = st.tuples(st.integers(0, 12), st.integers(1, 6)).map(lambda pair: (4 * pair[0], 4 * (pair[0] + pair[1])))


@st.composite
def launches(draw):
    """A launch as far as the passes look at its memory: dense or strided operands, and spans behind a table."""
    roles = draw(st.lists(st.sampled_from([In, Out, InOut]), min_size=1, max_size=3))
    found = [draw(spans) for _ in roles]
    shapes = [((high - low) // 4 - draw(st.integers(0, 1)),) for low, high in found]
    reached = draw(st.lists(spans, max_size=1))
    return SimpleNamespace(
        primitive=SimpleNamespace(buffers=tuple(roles)), spans=tuple(found), shapes=tuple(shapes), reached=tuple(reached)
    )


@given(st.lists(launches(), max_size=6), spans, st.lists(spans, max_size=2))
def test_the_table_of_uses_agrees_with_a_walk_over_the_launches(later, span, forgotten):
    uses = _Uses()
    for launch in reversed(later):
        uses.add(launch)
    assert uses.end(span, forgotten) == is_dead(span, later, forgotten)


def updates_in_one_program(count: int) -> float:
    """Seconds to record so many updates of a small network as one program; the function has run before."""
    net = rl.nn.Sequential(rl.nn.Linear(3, 8), rl.nn.Tanh(), rl.nn.Linear(8, 1))
    optimizer = rl.optim.Adam(net.parameters())
    x = rl.ones(4, 3)

    def run() -> None:
        for _ in range(count):
            loss = (net(x) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    run()
    recorded = rl.compile(run)
    begin = time.process_time()
    recorded()
    taken = time.process_time() - begin
    assert len(recorded.programs[0].launches) >= 10 * count
    return taken


def test_time_to_record_grows_with_the_launches():
    updates_in_one_program(10)
    short = min(updates_in_one_program(40) for _ in range(3))
    long = min(updates_in_one_program(320) for _ in range(2))
    assert long < 24 * short  # eight times the launches; the square would be 64 times as long
