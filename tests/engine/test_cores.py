"""The number of threads changes no bit: the sizes alone decide how work is cut."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.engine.kernels import elementwise
from rl_lab.engine.launch import launch_parts
from rl_lab.native import threads

SCRIPT = """
from tests.engine.test_cores import training_digest
print(training_digest())
"""


def training_digest(steps: int = 3) -> str:
    """A hash of the parameters after steps that are large enough for every kind of cut: products, elementwise launches and Adam."""
    generator = rl.Generator(3)
    net = rl.nn.Sequential(
        rl.nn.Linear(40, 300, generator=generator),
        rl.nn.Tanh(),
        rl.nn.Linear(300, 300, generator=generator),
        rl.nn.ReLU(),
        rl.nn.Linear(300, 5, generator=generator),
    )
    optimizer = rl.optim.Adam(net.parameters(), lr=1e-2)

    @rl.compile
    def step(x):
        loss = net(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(steps):
        step(rl.randn(301, 40, generator=generator))
    assert any(launch.parts for launch in step.programs[0].launches)
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in net.parameters())).hexdigest()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_one_two_and_four_threads_agree(threads):
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "NUMBA_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == training_digest()


def test_small_work_is_not_shared():
    step = rl.compile(lambda x: (x @ x).tanh() + 1.0)
    step(rl.randn(64, 64, generator=rl.Generator(0)))
    assert not any(launch.parts for launch in step.programs[0].launches)


@pytest.mark.parametrize("shape", [(70_001,), (301, 230), (2, 40_000), (1, 70_000)])
def test_a_cut_launch_equals_the_whole(shape):
    """Recorded launches are cut, eager ones are not."""
    rng = np.random.default_rng(1)
    a, b = rl.tensor(rng.standard_normal(shape)), rl.tensor(rng.standard_normal(shape[-1:]))
    function = rl.no_grad()(lambda a, b: ((a + b).tanh() * a, rl.where(a > b, a, b), a.clone().mul_(b), b - a))
    recorded = rl.compile(function)
    recorded(a, b)
    assert sum(bool(launch.parts) for launch in recorded.programs[0].launches) >= 5
    for ours, eager in zip(recorded(a, b), function(a, b), strict=True):
        assert ours.numpy().tobytes() == eager.numpy().tobytes()


def test_parts_run_each_once():
    """There are more parts than cores, and each part is written to its own place."""
    x, out = rl.arange(100).float(), rl.zeros(100)
    launch_parts(elementwise.neg, [((out, x), (10 * t, 10 * t), (1, 10, 0, 1)) for t in range(10)], cycles=1000)
    assert out.tolist() == [-float(i) for i in range(100)]


def test_a_replay_that_only_reads_a_weight_leaves_its_version():
    """The cut product keeps its gradient: a graph that saved the weight before can still be differentiated."""
    weight = rl.randn(256, 256, generator=rl.Generator(1)).requires_grad_()
    forward = rl.compile(rl.no_grad()(lambda x: x @ weight))
    x = rl.randn(128, 256, generator=rl.Generator(2))
    forward(x)
    assert any(launch.parts for launch in forward.programs[0].launches)
    saved = (weight * weight).sum()
    forward(x)
    saved.backward()
    assert weight.grad.tolist() == (2.0 * weight).tolist()


# --- whether to share --------------------------------------------------------------------------------------------------


def regions(stalls, expected=200_000):
    """(the number of regions that were shared, the final state), if each region in ``stalls`` takes as long as a time slice."""
    state, shared = np.zeros(3, np.int64), 0
    for stalled in stalls:
        if threads.may_share(state, 1):
            shared += 1
            threads.note_region(state, 10_000_000 if stalled else expected // 2, expected)
    return shared, state


def test_rare_stalls_are_paid_by_what_sharing_saves():
    shared, _ = regions(i % 1_000 == 999 for i in range(20_000))
    assert shared == 20_000


def test_where_another_process_holds_the_core_work_stays_on_one():
    shared, state = regions(True for _ in range(20_000))
    assert 5 < shared < 20
    assert state[0] <= 2048


def test_sharing_comes_back_when_the_core_is_free_again():
    shared, state = regions(i < 1_000 for i in range(20_000))
    assert shared > 15_000
    assert state[1] == 0  # the next rest would be short, too


def _replays(trials, several, one, count):
    """Replays that take ``several`` or ``one`` cycles; how many of them used several cores."""
    used = 0
    for _ in range(count):
        used += trials[threads.SEVERAL]
        threads.note_replay(trials, several if trials[threads.SEVERAL] else one)
    return used


def test_a_program_goes_the_faster_way():
    trials = threads.new_trials()
    _replays(trials, 100, 150, 2_000)
    assert _replays(trials, 100, 150, 20_000) > 19_900  # trials of one core are rare
    _replays(trials, 250, 150, 10_000)  # data move slowly between the cores from now on
    assert _replays(trials, 250, 150, 20_000) < 100
    _replays(trials, 100, 150, 10_000)
    assert _replays(trials, 100, 150, 20_000) > 19_900


def test_equal_ways_and_a_missing_counter_change_nothing():
    for cycles in (0, 100):
        trials = threads.new_trials()
        assert _replays(trials, cycles, cycles, 20_000) > 19_900


def test_a_program_tries_one_core_and_keeps_its_bits():
    layers = [rl.nn.Linear(a, b, generator=rl.Generator(0)) for a, b in ((300, 400), (400, 300))]

    @rl.no_grad()
    def run(x):
        return layers[1](layers[0](x).tanh())

    compiled = rl.compile(run)
    x = rl.randn(256, 300, generator=rl.Generator(1))
    expected = run(x).numpy().tobytes()
    seen = set()
    for _ in range(80):
        assert compiled(x).numpy().tobytes() == expected
        seen.add(int(compiled.programs[0]._trials[threads.SEVERAL]))
    assert seen == {0, 1}
    small = rl.compile(lambda x: x + 1)
    for _ in range(5):
        small(x[:2, :2].clone())
    assert small.programs[0]._trials is threads.unwatched
