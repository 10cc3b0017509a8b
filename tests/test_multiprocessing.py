"""`rl_lab.multiprocessing`: processes are spawned, and tensors are sent as copies."""

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
