"""`rl_lab.multiprocessing`: processes are spawned, and tensors are sent as copies."""

import time

import pytest

import rl_lab as rl
from rl_lab import multiprocessing as mp


def double(number, queue, x):
    queue.put((number, (x * 2.0).tolist()))


def fail(number):
    raise SystemExit(3 if number else 0)


def test_tensors_go_to_processes_and_back():
    queue = mp.SimpleQueue()
    mp.spawn(double, (queue, rl.tensor([1.0, 2.0])), nprocs=2)
    assert sorted([queue.get(), queue.get()]) == [(0, [2.0, 4.0]), (1, [2.0, 4.0])]


def test_a_failure_is_told():
    with pytest.raises(mp.ProcessRaisedException, match="exit code 3"):
        mp.spawn(fail, nprocs=2)


def fail_or_wait(number):
    if number:
        raise SystemExit(3)
    time.sleep(300)


def test_a_failure_ends_processes_that_wait():
    """The first process would wait for the second one."""
    context = mp.spawn(fail_or_wait, nprocs=2, join=False)
    assert context.join(0.0) is False
    begin = time.monotonic()
    with pytest.raises(mp.ProcessRaisedException, match="process 1 ended with exit code 3"):
        context.join(60.0)
    assert time.monotonic() - begin < 50
    assert not any(process.is_alive() for process in context.processes)


def test_a_failure_before_the_wait_is_noticed_at_once():
    context = mp.spawn(fail_or_wait, nprocs=2, join=False)
    context.processes[1].join()
    begin = time.monotonic()
    with pytest.raises(mp.ProcessRaisedException, match="process 1 ended with exit code 3"):
        context.join(60.0)
    assert time.monotonic() - begin < 50
