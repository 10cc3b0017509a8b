"""Memory of eager code: free blocks are used again, and the number of free bytes that are kept is bounded."""

import subprocess
import sys
import threading

import pytest

import rl_lab as rl
from rl_lab.engine import memory
from rl_lab.engine.memory import KEEP_PER_SMALL_SIZE, KEEP_RECENT, LARGEST_KEPT, SMALL

# Shapes of one process: the shapes of a phase come back, and each phase has other shapes.
RANDOM_SHAPES = """
import numpy as np
import rl_lab as rl

def resident():  # MiB
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

rng = np.random.default_rng(0)
weight = rl.ones(16, 64)
((rl.zeros(9_000, 16) @ weight).relu()).sum()
before, most = resident(), 0.0
for count in range(10_000):
    rows = int(rng.integers(1, 9_000))
    ((rl.zeros(rows, 16) @ weight).relu()).sum()
    if count % 100 == 0:
        most = max(most, resident() - before)
print(most)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_ten_thousand_random_shapes_do_not_make_the_process_grow():
    done = subprocess.run([sys.executable, "-c", RANDOM_SHAPES], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2 * KEEP_RECENT / 2**20 + 64  # MiB; of these, 64 are for the allocator


def free_blocks() -> int:
    """Bytes of the blocks above `SMALL` that eager code keeps."""
    pool = memory._common
    lists = [*pool.items(), *pool.older.items()]
    return sum(size * len(blocks) for size, blocks in lists if size > SMALL)


@pytest.mark.parametrize("most", [20_000, 400_000, 9_000_000])
def test_what_is_kept_is_bounded_whatever_the_sizes(most):
    generator = rl.Generator().manual_seed(most)
    for _ in range(20):
        sizes = rl.randint(1, most, (16,), generator=generator).tolist()
        alive = [rl.empty(size) for size in sizes]
        assert len(alive) == 16
        del alive
        assert free_blocks() <= 2 * KEEP_RECENT
    assert not any(blocks for size, blocks in memory._common.items() if size > LARGEST_KEPT)


def test_small_sizes_are_bounded_each():
    alive = [rl.empty(1000) for _ in range(2 * KEEP_PER_SMALL_SIZE // 4000)]
    assert len(alive) > 1000
    del alive
    assert len(memory._common[4032]) * 4032 <= KEEP_PER_SMALL_SIZE + 4032


def test_a_size_that_is_used_stays():
    """A block is used again while other sizes come and go: only sizes that are no longer used are dropped."""
    used = rl.empty(54_321)
    address = used.data_ptr()
    del used
    for count in range(2_000):
        rl.empty(100_000 + 16 * count)
        again = rl.empty(54_321)
        assert again.data_ptr() == address
        del again


def test_threads_may_all_drop_old_blocks():
    """Every thread that exceeds the limit moves the recent blocks to the older ones, also while another one does so."""
    pool = memory.Pool()
    faults = []

    def work() -> None:
        try:
            for count in range(2_000):
                pool.setdefault(8192 + 64 * (count % 50), []).append(memory.Block(64, pool))
                pool.age()
        except Exception as error:
            faults.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert faults == []


def test_threads_count_what_they_free():
    def work() -> None:
        for count in range(3_000):
            rl.empty(10_000 + 16 * count)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    memory._common.age()
    assert free_blocks() <= KEEP_RECENT + 8 * 2**20
    memory._common.age()
    assert free_blocks() == 0
