"""Random training programs replay bit for bit, and the comparison detects a missing launch, a changed number and a lost gradient.

``RL_LAB_PROGRAMS=1000 pytest tests/engine/test_random_programs.py`` runs more of them.
"""

import os
import struct
from dataclasses import replace

import pytest

from rl_lab.engine.program import Program
from tests.engine.random_programs import CALLS, compare, compare_surrounded

COUNT = int(os.environ.get("RL_LAB_PROGRAMS") or 200)
PLANTED = [seed for seed in range(20) if compare(seed, calls=3).replays]  # programs in which an error shows after few calls


def test_random_programs_replay_bit_for_bit():
    """Outputs, parameters, gradients, optimiser states and random streams agree after every call. Most calls are replays."""
    results = [compare(seed) for seed in range(COUNT)]
    assert [result.difference for result in results if result.difference] == []
    assert sum(result.replays for result in results) > 0.5 * CALLS * COUNT


@pytest.mark.filterwarnings("ignore::rl_lab.errors.EagerWarning")
def test_programs_that_use_what_surrounds_tensors_agree_bit_for_bit():
    """Numbers, attributes, containers, globals, closures, arguments that are written to or passed twice, and calls that fail."""
    results = [compare_surrounded(seed) for seed in range(COUNT)]
    assert [result.difference for result in results if result.difference] == []
    assert sum(result.replays for result in results) > 0.3 * 2 * CALLS * COUNT
    assert sum(result.failures for result in results) > 0.5 * COUNT


# --- planted errors --------------------------------------------------------------------------------------------------


def plant(monkeypatch, change):
    """Replace the launches of every program that is built by ``change(launches)``."""
    build = Program._build

    def spoiled(program):
        program.launches = change(program.launches)
        build(program)

    monkeypatch.setattr(Program, "_build", spoiled)


def is_found(seed):
    """Whether the comparison reports a difference. A missing launch may also leave an index in memory that is out of bounds."""
    try:
        return compare(seed, calls=4).difference is not None
    except IndexError:
        return True


def test_without_a_planted_error_nothing_is_found():
    assert len(PLANTED) > 8
    assert not any(map(is_found, PLANTED))


@pytest.mark.parametrize("kind", ["adam", "sgd", "normal", "blend"])
def test_a_kernel_left_out_is_found(monkeypatch, kind):
    """The error shows in the programs that launch the kernel, apart from a few in which it has no effect, and in no other."""
    left_out = []

    def leave_out(launches):
        kept = [launch for launch in launches if launch.name != kind]
        left_out.append(len(kept) < len(launches))
        return kept

    plant(monkeypatch, leave_out)
    concerned, found = set(), set()
    for seed in PLANTED:
        left_out.clear()
        found |= {seed} if is_found(seed) else set()
        concerned |= {seed} if any(left_out) else set()
    assert found <= concerned
    assert len(found) > 0.7 * len(concerned) > 0


def test_a_single_launch_left_out_is_found(monkeypatch):
    """With one launch left out many programs differ. In the others nothing depends on the launch, or its result does not change."""
    place = 0.0

    def leave_out_one(launches):
        i = int(place * len(launches))
        return launches[:i] + launches[i + 1 :]

    plant(monkeypatch, leave_out_one)
    found = []
    for place in (0.02, 0.3, 0.55, 0.8, 0.98):  # noqa: B007  leave_out_one reads it
        found += [is_found(seed) for seed in PLANTED]
    assert sum(found) > 0.4 * len(found)


def test_a_changed_number_is_found(monkeypatch):
    """Adam's decay rate is off by one part in a thousand."""

    def change(launch):
        if launch.name != "adam":
            return launch
        place = 8 * (len(launch.primitive.buffers) + 1)  # behind the buffers and the count
        (beta,) = struct.unpack_from("d", launch.row, place)
        return replace(launch, row=launch.row[:place] + struct.pack("d", beta * 1.001) + launch.row[place + 8 :])

    plant(monkeypatch, lambda launches: list(map(change, launches)))
    assert any(map(is_found, PLANTED))


def test_a_gradient_kept_back_is_found(monkeypatch):
    """Replays leave ``.grad`` as it was before, here None."""
    run = Program.run

    def forgetful(program, *arguments):
        result = run(program, *arguments)
        for gradient in program._gradients:
            gradient.leaf._grad = None
        return result

    monkeypatch.setattr(Program, "run", forgetful)
    assert sum(map(is_found, PLANTED)) > 0.3 * len(PLANTED)
