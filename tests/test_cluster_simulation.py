"""The simulation of many machines against cases whose result is known in closed form."""

import math

import numpy as np
import pytest

from benchmarks.cluster_simulation import NEVER, Cluster, Round, Trouble, simulate


@pytest.mark.parametrize("workers", [1, 2, 3, 10, 64, 1000])
def test_without_costs_and_failures_workers_take_equal_tasks_in_waves(workers):
    out = simulate([Round([2.5] * 100)], Cluster(workers))
    assert out.seconds == math.ceil(100 / workers) * 2.5
    assert out.finished == 100
    assert out.repeated == out.retried == out.failed == 0
    assert out.efficiency == pytest.approx(100 * 2.5 / (workers * out.seconds))


def test_cores_of_a_machine_are_workers():
    assert (
        simulate([Round([1.0] * 40)], Cluster(5, cores=4)).seconds == simulate([Round([1.0] * 40)], Cluster(20)).seconds == 2.0
    )
    assert simulate([Round([1.0] * 40)], Cluster(5, cores=4, slowdown=1.5)).seconds == 3.0


def test_the_driver_sends_one_task_after_the_other():
    """With a worker for every task the last task is sent after all others; with one worker everything adds up."""
    cluster = Cluster(50, start=3.0, dispatch=0.5, receive=0.25, latency=0.125)
    assert simulate([Round([10.0] * 20)], cluster).seconds == 20 * 0.5 + 0.125 + 3.0 + 10.0 + 0.125 + 0.25
    one = Cluster(1, start=3.0, dispatch=0.5, receive=0.25, latency=0.125)
    assert simulate([Round([10.0] * 20)], one).seconds == 3.0 + 20 * (0.5 + 0.125 + 10.0 + 0.125 + 0.25)


def test_a_driver_that_is_always_busy_sets_the_time():
    """Tasks of no length on many workers: the driver sends and receives each of them."""
    out = simulate([Round([0.0] * 1000)], Cluster(10_000, dispatch=0.01, receive=0.02))
    assert out.seconds == pytest.approx(1000 * 0.03)
    assert out.driver == pytest.approx(out.seconds)


def test_bytes_take_their_time_and_are_counted():
    work = Round([1.0] * 6, task_bytes=1000.0, report_bytes=500.0, pieces=4, messages=9)
    out = simulate([work], Cluster(1, bandwidth=1000.0))
    assert out.bytes == 6 * (1000 + 4 * 500)
    assert out.messages == 6 * (1 + 4 * (1 + 9))
    assert out.seconds == pytest.approx(6 * (1.0 + 1.0 + 4 * 0.5))


def test_rounds_wait_for_their_slowest_task():
    rounds = [Round([1.0, 5.0, 2.0], serial=0.5), Round([3.0, 1.0, 1.0], serial=0.5)]
    out = simulate(rounds, Cluster(3))
    assert out.ended == (5.5, 9.0)
    assert out.seconds == 9.0


@pytest.mark.parametrize("checkpoints", [0, 1, 2, 5])
def test_a_lost_machine_repeats_exactly_the_work_since_the_checkpoint(checkpoints):
    """One worker, tasks of 10 pieces of a second; the machine is lost 7.25 seconds into the second task."""
    trouble = Trouble(losses=((17.25, 0),), repair=4.0, detection=1.0)
    out = simulate([Round([10.0] * 3, pieces=10, checkpoints=checkpoints)], Cluster(1), trouble)
    lost = 7.25 - (7 // checkpoints * checkpoints if checkpoints else 0)
    assert out.repeated == pytest.approx(lost)
    assert out.seconds == pytest.approx(30.0 + lost + 4.0)
    assert (out.finished, out.retried, out.failed) == (3, 1, 0)


def test_every_loss_adds_its_own_work():
    losses = ((3.0, 0), (14.0, 1), (21.0, 0), (33.0, 1))
    out = simulate([Round([10.0] * 8)], Cluster(2), Trouble(losses=losses))
    # machine 0: 3 lost, 10, then 8 lost of the next; machine 1: 10, 4 lost, 10, then 9 lost of the next
    assert out.repeated == pytest.approx(3 + 4 + 8 + 9)
    assert out.retried == 4
    assert out.finished == 8
    assert out.computed == 80


def test_the_loss_of_an_idle_machine_costs_nothing():
    out = simulate([Round([5.0] * 2)], Cluster(3), Trouble(losses=((2.0, 2),), repair=NEVER))
    assert (out.seconds, out.repeated, out.retried) == (5.0, 0.0, 0)


def test_other_machines_take_over_from_one_that_does_not_return():
    out = simulate([Round([5.0] * 4)], Cluster(2), Trouble(losses=((2.0, 0),), repair=NEVER, detection=1.0))
    assert out.seconds == 20.0  # one worker for four tasks; its first one was not disturbed
    assert out.repeated == 2.0


def test_a_task_fails_after_its_retries_and_the_others_go_on():
    losses = tuple((2.0 + 2.0 * k, 0) for k in range(3))
    out = simulate([Round([5.0] * 2)], Cluster(1), Trouble(losses=losses, retries=2))
    assert (out.finished, out.failed, out.retried) == (1, 1, 2)
    assert out.repeated == 6.0
    assert out.seconds == 11.0


def test_tasks_without_a_machine_fail():
    out = simulate([Round([5.0] * 3)], Cluster(1), Trouble(losses=((7.0, 0),), repair=NEVER))
    assert (out.finished, out.failed) == (1, 2)


def test_all_tasks_are_stragglers_or_none_is():
    assert simulate([Round([2.0] * 10)], Cluster(5), Trouble(stragglers=1.0, factor=3.0)).seconds == 12.0
    assert simulate([Round([2.0] * 10)], Cluster(5), Trouble(stragglers=0.0, factor=3.0)).seconds == 4.0


def test_random_losses_take_the_expected_time():
    """A task of length c without checkpoints, on a machine with lifetimes of mean L that returns at once: L (exp(c / L) - 1)."""
    length, lifetime, tasks = 3.0, 2.0, 4000
    out = simulate([Round([length] * tasks)], Cluster(1), Trouble(lifetime=lifetime, retries=10**9), seed=7)
    expected = lifetime * math.expm1(length / lifetime)
    # the variance of one: L^2 (exp(2c/L) - 2 (c/L) exp(c/L) - 1)
    x = length / lifetime
    error = lifetime * math.sqrt((math.exp(2 * x) - 2 * x * math.exp(x) - 1) / tasks)
    assert abs(out.seconds / tasks - expected) < 4 * error
    assert out.seconds == pytest.approx(tasks * length + out.repeated)


def test_random_delays_have_the_expected_mean():
    tasks, mean = 5000, 0.3
    out = simulate([Round([1.0] * tasks)], Cluster(1), Trouble(delay=mean), seed=3)
    assert abs(out.seconds / tasks - (1.0 + 2 * mean)) < 4 * mean * math.sqrt(2 / tasks)


def test_the_slowest_of_stragglers_sets_the_time():
    """With a worker for every task, the time is that of a straggler unless there is none: probability (1 - p) ** n."""
    p, tasks, tries = 0.02, 30, 600
    slow = sum(
        simulate([Round([1.0] * tasks)], Cluster(tasks), Trouble(stragglers=p, factor=2.0), s).seconds == 2.0
        for s in range(tries)
    )
    expected = 1 - (1 - p) ** tasks
    assert abs(slow / tries - expected) < 4 * math.sqrt(expected * (1 - expected) / tries)


def test_equal_seeds_give_equal_results_and_others_do_not():
    rng = np.random.default_rng(0)
    rounds = [Round(rng.uniform(1, 9, 200).tolist(), pieces=5, checkpoints=2, messages=3, serial=1.0) for _ in range(3)]
    cluster = Cluster(8, cores=2, start=1.0, dispatch=0.01, receive=0.02, message=0.001, latency=0.005, slowdown=1.1)
    trouble = Trouble(delay=0.01, stragglers=0.1, factor=4.0, lifetime=100.0, repair=5.0, detection=2.0, retries=50)
    first, again, other = (simulate(rounds, cluster, trouble, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.seconds != other.seconds
    assert first.finished == other.finished == 600
    assert first.repeated > 0
    assert len(first.ended) == 3


@pytest.mark.parametrize(
    ("rounds", "cluster", "trouble", "message"),
    [
        ([Round([])], Cluster(), Trouble(), "at least one task"),
        ([Round([-1.0])], Cluster(), Trouble(), "less than 0"),
        ([Round([1.0], pieces=0)], Cluster(), Trouble(), "at least one piece"),
        ([Round([1.0])], Cluster(0), Trouble(), "at least one machine"),
        ([Round([1.0])], Cluster(latency=-1.0), Trouble(), "0 or more"),
        ([Round([1.0])], Cluster(), Trouble(stragglers=1.5), "between 0 and 1"),
        ([Round([1.0])], Cluster(), Trouble(lifetime=0.0), "above 0"),
        ([Round([1.0])], Cluster(2), Trouble(losses=((1.0, 2),)), "machine 2 is lost"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(rounds, cluster, trouble, message):
    with pytest.raises(ValueError, match=message):
        simulate(rounds, cluster, trouble)
