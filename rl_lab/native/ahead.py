"""Compile kernels in a second process while this one begins: with an empty cache, a first run needs dozens of them.

The helper goes through a list of kernels from its front and compiles them into the cache on disk. This process compiles each kernel when
it needs it. While the helper compiles that kernel, this process compiles other kernels from the end of the list. Each
process tells the other over a pipe which kernels it begins. If both begin a kernel at the same moment, both compile it, and nothing breaks.
"""

import atexit
import contextlib
import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numba

from rl_lab.native import cache, primitive
from rl_lab.native.primitive import Primitive
from rl_lab.native.threads import after_fork_in_child, usable_cores

FEWEST = 8
"""Missing kernels for which a second process pays: it needs a second to begin."""
LONGEST_WAIT = 60.0
"""Seconds after which this process no longer waits for the helper."""

_COMMAND = "from rl_lab.native.ahead import main; main()"


class Helper:
    """The second process, as seen from the first. ``kernels`` is the attribute ``KERNELS`` of ``module``, a name for the import."""

    def __init__(self, module: str, kernels: tuple[Primitive, ...]):
        self._kernels = kernels
        self._numbers = {kernel: number for number, kernel in enumerate(kernels)}
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self._taken: set[int] = set()
        self._ended = False
        self._changed = threading.Condition()
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths, "RL_LAB_CACHE": str(cache.base_directory())},
            start_new_session=True,  # Ctrl-C stops this process only
        )
        threading.Thread(target=self._listen, name="rl_lab kernels", daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                number, finished = json.loads(line)
                with self._changed:
                    (self._finished if finished else self._begun).add(number)
                    self._changed.notify_all()
            self._process.wait()
        except (ValueError, TypeError):
            self._process.kill()  # sys.executable is another program
        self.end()

    def end(self) -> None:
        """Stop waiting for the helper."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def kill(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def prepare(self, kernel: Primitive) -> None:
        """Return when this process may compile the kernel, or load it because the helper has compiled it."""
        number = self._numbers.get(kernel)
        if number is None:
            return
        while self._works_at(number):
            other = self._next()
            if other is not None:
                self._kernels[other].compile()
                continue
            with self._changed:
                if not self._changed.wait_for(lambda: not self._works_at(number), LONGEST_WAIT):
                    self.end()
        self._take(number)

    def _works_at(self, number: int) -> bool:
        return not self._ended and number in self._begun and number not in self._finished

    def _next(self) -> int | None:
        """The last kernel of the list that neither process has begun, or None."""
        free = set(range(len(self._kernels))) - self._begun - self._taken
        return max(free, default=None)

    def _take(self, number: int) -> None:
        """Tell the helper that this process compiles the kernel."""
        if number in self._taken:
            return
        self._taken.add(number)
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(b"%d\n" % number)
            self._process.stdin.flush()
        except OSError:
            pass  # the helper has ended


_helper: Helper | None = None


def start(module: str) -> bool:
    """Compile the ``KERNELS`` of a module ahead if many of them are not in the cache; return whether a helper was started.

    Does nothing in a process that may use one core only, that has no cache on disk, or that has started a helper before.
    """
    global _helper
    if _helper is not None or numba.get_num_threads() < 2 or usable_cores() < 2 or not cache.is_lasting() or not sys.executable:
        return False
    kernels: tuple[Primitive, ...] = importlib.import_module(module).KERNELS
    if sum(not kernel.is_cached() for kernel in kernels) < FEWEST:
        return False
    try:
        _helper = Helper(module, kernels)
    except OSError:
        return False  # no more processes are allowed
    primitive.before_compiling = _helper.prepare
    atexit.register(_stop)
    return True


@contextlib.contextmanager
def helped(module: str, first: Callable[[], object] = lambda: None) -> Iterator[None]:
    """In this context, the first kernel that is compiled calls ``first`` and starts a helper (see `start`)."""
    previous = cache.on_compile
    compiled = False

    def compiling(name: str) -> None:
        nonlocal compiled
        if not compiled:
            compiled = True
            first()
            start(module)
        if previous is not None:
            previous(name)

    cache.on_compile = compiling
    try:
        yield
    finally:
        cache.on_compile = previous


def _stop() -> None:
    global _helper
    if _helper is not None:
        _helper.kill()
    _forget()


def _forget() -> None:
    global _helper
    _helper = primitive.before_compiling = None


after_fork_in_child(_forget)  # the child has no thread that listens to the helper


# --- the second process ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Compile the kernels of the module named on the command line. Ends early if standard input does."""
    taken: set[int] = set()
    ended = threading.Event()

    def listen() -> None:
        rest = b""
        while data := os.read(0, 4096):
            *lines, rest = (rest + data).split(b"\n")
            taken.update(map(int, lines))
        ended.set()

    def tell(*message: Any) -> None:
        os.write(1, json.dumps(message).encode() + b"\n")

    threading.Thread(target=listen, daemon=True).start()
    try:
        for number, kernel in enumerate(importlib.import_module(sys.argv[1]).KERNELS):
            if ended.is_set():
                break
            if number not in taken:
                tell(number, False)
                kernel.compile()
                tell(number, True)
    except BrokenPipeError:
        pass  # the first process has ended
