"""Runs of a sweep as tasks on a Ray cluster: an existing one, or one of this machine that other machines cannot reach."""

import os
import time
from dataclasses import asdict
from types import ModuleType
from typing import Any

from rl_lab.experiment.faults import NUMERICAL, Fault, first_line
from rl_lab.experiment.sweeps.executors import ONE_THREAD, Event
from rl_lab.experiment.sweeps.worker import FAILED, Task, perform

INSTALL = "pip install 'ray[default]'"


def import_ray() -> ModuleType:
    """Ray. Raises Fault, with the command that installs it, if it is missing."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it when it is imported
    try:
        import ray
    except ImportError:
        raise Fault(f"--executor ray needs Ray: {INSTALL}") from None
    return ray


def connect(address: str = "", cores: int = 0) -> ModuleType:
    """Ray, connected to the cluster at ``address``, or to a new one with ``cores`` cores (0: all) on this machine.

    A new cluster listens on the loopback interface alone, and every cluster is asked for with a token (RAY_AUTH_MODE=disabled in the
    environment turns this off). A connection that the program has already is used. Raises Fault if there is no such cluster.
    """
    if not address:
        # Ray takes 127.0.0.1 for its own address only where it believes that there is one machine, as on macOS
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray = import_ray()
    if ray.is_initialized():
        return ray
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if not address:
        options |= {"include_dashboard": False, "num_cpus": cores or None}
    try:
        ray.init(address=address or "local", **options)
    except Exception as error:
        hint = "" if not address else ": is it running, and does this machine have its token (ray get-auth-token)?"
        raise Fault(f"Ray cannot use {address or 'this machine'}: {first_line(error)}{hint}") from None
    return ray


class Mailbox:
    """Events of runs on their way to the sweep, and the keys of runs that it prunes. It lives on the sweep's own machine."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._pruned: set[str] = set()

    def put(self, event: Event) -> bool:
        """Add an event; returns whether its run should end."""
        self._events.append(event)
        return event["key"] in self._pruned

    def take(self) -> list[Event]:
        """Return the events since the last call."""
        events, self._events = self._events, []
        return events

    def prune(self, key: str) -> None:
        self._pruned.add(key)


def perform_on_cluster(task: dict[str, Any], mailbox: Any) -> dict[str, Any]:
    """`perform` in a process of the cluster. Only a report of an evaluation waits for the answer whether the run should end."""
    import ray

    def tell(event: Event) -> bool:
        sent = mailbox.put.remote({**event, "key": task["key"]})
        return bool(ray.get(sent)) if event["kind"] == "evaluated" else False

    return perform(Task(**task), tell)


class RayExecutor:
    """Runs as tasks of one core each. A task whose machine is lost is begun again elsewhere, from its last checkpoint."""

    def __init__(self, address: str, workers: int, retries: int):
        self._ray = connect(address, workers)
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox = self._ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        self._perform: Any = self._ray.remote(num_cpus=1, max_retries=retries, runtime_env={"env_vars": ONE_THREAD})(
            perform_on_cluster
        )
        self._running: dict[Any, str] = {}

    def places(self) -> int:
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def submit(self, task: Task) -> None:
        self._running[self._perform.remote(asdict(task), self._mailbox)] = task.key

    def events(self, seconds: float) -> list[Event]:
        ended: list[Any] = []
        if self._running:
            ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        else:
            time.sleep(seconds)
        found = self._ray.get(self._mailbox.take.remote())
        for reference in ended:
            key = self._running.pop(reference)
            try:
                result = self._ray.get(reference)
            except Exception as error:
                result = {"state": FAILED, "message": f"Ray gave it up: {first_line(error)}", "code": NUMERICAL}
            found.append({"kind": "result", **result, "key": key})
        known = {*self._running.values(), *(event["key"] for event in found if event["kind"] == "result")}
        return [event for event in found if event["key"] in known]  # others are late words of runs that have ended

    def prune(self, key: str) -> None:
        self._mailbox.prune.remote(key)

    def close(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference)  # an interrupt, at which a run writes its checkpoint
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=60.0)
        self._running.clear()
        self._ray.kill(self._mailbox)
