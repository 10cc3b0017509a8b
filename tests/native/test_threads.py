"""Processes that fork while other threads hold locks or compile: the child works, and the parent goes on."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")

START = """
import os, signal, threading, time
import rl_lab as rl
from rl_lab.engine import launch, memory, tape
from rl_lab.envs import world
from rl_lab.native import cache, primitive, threads
from numba.core.compiler_lock import global_compiler_lock

layer = rl.nn.Linear(3, 3)
optimizer = rl.optim.SGD(layer.parameters(), lr=0.1)

def step(x):
    loss = layer(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()

compiled = rl.compile(step)
for _ in range(3):
    compiled(rl.ones(2, 3))

def in_child(work):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        work()
        os._exit(0)
    return os.waitpid(child, 0)[1]

def work():
    compiled(rl.ones(2, 3))
    compiled(rl.ones(5, 3))
    step(rl.ones(2, 3))
    with global_compiler_lock:
        rl.ones(4).cumsum(0)
"""
HELD = """
locks = [compiled._replaying, launch._counting, memory._counting, tape._deliver, world._lock]
locks += [cache._lock, primitive._compiling, threads._starting]
held, done = threading.Event(), threading.Event()

def hold():
    for lock in locks:
        lock.acquire()
    held.set()
    done.wait()
    for lock in locks:
        lock.release()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
status = in_child(work)
done.set()
thread.join()
work()
print(status)
"""
COMPILING = """
held = threading.Event()

def compile():
    with global_compiler_lock:
        held.set()
        time.sleep(1.0)
        finished.append(time.monotonic())

finished = []
thread = threading.Thread(target=compile)
thread.start()
held.wait()
status = in_child(lambda: (work(), os._exit(0 if finished else 1)))
thread.join()
with global_compiler_lock:
    work()
print(status)
"""


@pytest.mark.parametrize("code", [HELD, COMPILING], ids=["locks", "compilation"])
def test_a_child_does_not_wait_for_threads_that_it_does_not_have(code):
    done = subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, timeout=150, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["0"]), done.stderr


def test_every_lock_of_a_module_is_renewed_in_a_child():
    """A lock that is missing from the list of the first test is found here."""
    code = (
        "import gc, os, sys, threading, types; import rl_lab, rl_lab.agents, rl_lab.envs.world; kinds = (type(threading.Lock()), "
        "type(threading.RLock()));\n"
        "def locks():\n"
        "    modules = [m for n, m in sys.modules.items() if n.startswith('rl_lab')]\n"
        "    return {(m.__name__, n): id(v) for m in modules for n, v in vars(m).items() if isinstance(v, kinds)}\n"
        "before = locks(); kept = [vars(sys.modules[m])[n] for m, n in before]\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    after = locks(); same = [k for k in before if before[k] == after[k]]; print(len(before), same, flush=True); os._exit(0)\n"
        "os.waitpid(child, 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=150, check=False)
    count, same = done.stdout.strip().split(" ", 1)
    assert int(count) >= 7, done.stderr
    assert same == "[]"
