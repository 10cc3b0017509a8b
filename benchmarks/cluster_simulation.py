"""A simulation of many machines that share tasks: event by event, with delays, stragglers and lost machines. It needs NumPy alone.

One process, the driver, gives tasks to workers and takes their results, one message after the other. Tasks come in rounds: the next
round begins when the last task of a round has ended, as the next generation of NEAT does. A sweep is one round. Times are seconds.

`simulate` plays `Round`s on a `Cluster` with `Trouble`. `benchmarks.scaling` measures the numbers that go in.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NEVER = float("inf")


@dataclass(frozen=True)
class Round:
    """Tasks that must all end before the next round begins."""

    seconds: Sequence[float]
    """Computing time of each task on a worker that nothing slows down."""
    serial: float = 0.0
    """Computing time of the driver after the last task, such as breeding."""
    pieces: int = 1
    """Equal pieces of a task. A worker reports after each piece and waits for the answer, as a run does after a short evaluation."""
    checkpoints: int = 0
    """Number of pieces between checkpoints. With 0 there are none, and a task whose machine is lost starts again."""
    messages: int = 0
    """Messages a piece that wait for no answer, such as the progress of a run. They reach the driver with the report."""
    task_bytes: float = 0.0
    report_bytes: float = 0.0
    """Bytes of the report and the messages of one piece; the last piece's report carries the result."""


@dataclass(frozen=True)
class Cluster:
    """Machines, and what the driver and the network need for a message."""

    machines: int = 1
    cores: int = 1
    """Workers a machine; each works on one task at a time."""
    start: float = 0.0
    """Time until the process of a worker can begin its first task, also after its machine was lost."""
    dispatch: float = 0.0
    """Time of the driver for sending a task."""
    receive: float = 0.0
    """Time of the driver for a report."""
    message: float = 0.0
    """Time of the driver for a message that is not a report."""
    latency: float = 0.0
    """Time of a message on the network, in one direction."""
    bandwidth: float = NEVER
    """Bytes a second that the driver's network carries. A message occupies the driver while it is carried."""
    slowdown: float = 1.0
    """Factor by which computing takes longer where all cores of a machine compute at once."""


@dataclass(frozen=True)
class Trouble:
    """What goes wrong, and how often. The default is that nothing does."""

    delay: float = 0.0
    """Mean of an exponential delay that is added to every message."""
    stragglers: float = 0.0
    """Probability that a task is slowed down, each time it begins."""
    factor: float = 1.0
    """How many times as long a slowed-down task computes."""
    lifetime: float = NEVER
    """Mean time until a machine is lost; lifetimes are exponential."""
    repair: float = 0.0
    """Time until a lost machine works again; `NEVER` if it does not come back."""
    detection: float = 0.0
    """Time until the driver knows that a machine is lost."""
    retries: int = 3
    """How often a task whose machine was lost is begun again before it fails."""
    losses: tuple[tuple[float, int], ...] = ()
    """Further losses, each a time and the number of a machine."""


@dataclass
class Outcome:
    """How the tasks ended. ``seconds`` is the time until the last one did, and until the last round's serial part."""

    seconds: float = 0.0
    finished: int = 0
    failed: int = 0
    """Tasks whose machines were lost more often than ``retries`` allows, or for which no machine was left."""
    retried: int = 0
    computed: float = 0.0
    """Computing time that was needed: the times of the finished tasks, and the serial parts."""
    repeated: float = 0.0
    """Computing time that was lost with machines: it had to be spent again."""
    messages: int = 0
    bytes: float = 0.0
    driver: float = 0.0
    """Time in which the driver was busy, serial parts left out."""
    workers: int = 1
    ended: tuple[float, ...] = ()
    """Times at which the rounds ended."""

    @property
    def efficiency(self) -> float:
        """Share of the workers' time that the tasks needed; 1 if no worker ever waited."""
        return self.computed / (self.workers * self.seconds) if self.seconds else 1.0


class _Task:
    """A task: what of it is safe, and how often it was begun again."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.safe = 0
        self.retries = 0


class _Worker:
    """A worker. ``life`` counts the losses of its machine: events of an earlier life do not happen."""

    def __init__(self, machine: int):
        self.machine = machine
        self.life = 0
        self.started = False
        self.up = True
        self.task: _Task | None = None
        self.piece = 0
        self.pace = 1.0
        self.began = NEVER
        """Time at which the present piece began to compute; NEVER while the worker waits."""


class _Simulation:
    def __init__(self, rounds: Sequence[Round], cluster: Cluster, trouble: Trouble, seed: int):
        self.rounds = rounds
        self.cluster = cluster
        self.trouble = trouble
        lives, self.random = (np.random.default_rng(part) for part in np.random.SeedSequence(seed).spawn(2))
        self.workers = [_Worker(k // cluster.cores) for k in range(cluster.machines * cluster.cores)]
        self.out = Outcome(workers=len(self.workers))
        self.events: list[tuple[float, int, Any, tuple[Any, ...]]] = []
        self.order = itertools.count()
        self.idle = deque(self.workers)
        self.waiting: deque[_Task] = deque()
        self.lives = lives
        self.free = 0.0
        self.number = -1
        self.left = 0
        for time, machine in trouble.losses:
            self.at(time, self.lose, machine, False)
        if trouble.lifetime < NEVER:
            for machine in range(cluster.machines):
                self.at(lives.exponential(trouble.lifetime), self.lose, machine, True)

    # --- events ------------------------------------------------------------------------------------------------------

    def at(self, time: float, what: Any, *about: Any) -> None:
        if time < NEVER:
            heapq.heappush(self.events, (time, next(self.order), what, about))

    def run(self) -> Outcome:
        self.begin_round(0.0)
        while self.events and self.number < len(self.rounds):
            time, _, what, about = heapq.heappop(self.events)
            what(time, *about)
        self.out.failed += self.left  # no machine was left for them
        return self.out

    def begin_round(self, time: float) -> None:
        self.number += 1
        self.out.seconds = time
        if self.number == len(self.rounds):
            return
        self.round = self.rounds[self.number]
        self.left = len(self.round.seconds)
        self.waiting.extend(map(_Task, self.round.seconds))
        self.dispatch(time)

    def drive(self, time: float, seconds: float, size: float) -> float:
        """Occupy the driver with a message, when it is free; returns when it is done."""
        took = seconds + size / self.cluster.bandwidth
        self.free = max(time, self.free) + took
        self.out.driver += took
        self.out.messages += 1
        self.out.bytes += size
        return self.free

    def travel(self) -> float:
        """Time of a message on the network."""
        delay = self.random.exponential(self.trouble.delay) if self.trouble.delay else 0.0
        return self.cluster.latency + delay

    def dispatch(self, time: float) -> None:
        """Send waiting tasks to idle workers."""
        while self.waiting and self.idle:
            worker = self.idle.popleft()
            if not worker.up:
                continue
            task = self.waiting.popleft()
            worker.task = task
            worker.piece = task.safe
            sent = self.drive(time, self.cluster.dispatch, self.round.task_bytes)
            start = 0.0 if worker.started else self.cluster.start
            self.at(sent + self.travel() + start, self.begin_task, worker, worker.life)

    def begin_task(self, time: float, worker: _Worker, life: int) -> None:
        if worker.life != life:
            return
        worker.started = True
        slowed = self.trouble.stragglers and self.random.random() < self.trouble.stragglers
        crowded = self.cluster.slowdown if self.cluster.cores > 1 else 1.0
        worker.pace = crowded * (self.trouble.factor if slowed else 1.0)
        self.begin_piece(time, worker, life)

    def begin_piece(self, time: float, worker: _Worker, life: int) -> None:
        if worker.life != life:
            return
        assert worker.task is not None
        worker.began = time
        self.at(time + worker.pace * worker.task.seconds / self.round.pieces, self.end_piece, worker, life)

    def end_piece(self, time: float, worker: _Worker, life: int) -> None:
        if worker.life != life:
            return
        assert worker.task is not None
        worker.began = NEVER
        worker.piece += 1
        self.at(time + self.travel(), self.report, worker, life)

    def report(self, time: float, worker: _Worker, life: int) -> None:
        """A report reaches the driver."""
        if worker.life != life:
            return  # its machine was lost on the way
        assert worker.task is not None
        every = self.round.checkpoints
        if every and worker.piece % every == 0:
            worker.task.safe = worker.piece
        self.out.messages += self.round.messages
        seconds = self.cluster.receive + self.round.messages * self.cluster.message
        known = self.drive(time, seconds, self.round.report_bytes)
        if worker.piece < self.round.pieces:
            self.at(known + self.travel(), self.begin_piece, worker, life)
        else:
            self.out.computed += worker.task.seconds
            self.out.finished += 1
            worker.task = None
            self.at(known, self.end_task, worker, life)

    def end_task(self, time: float, worker: _Worker, life: int) -> None:
        if worker.life == life:
            self.idle.append(worker)
        self.dispatch(time)
        self.count_down(time)

    def count_down(self, time: float) -> None:
        self.left -= 1
        if not self.left:
            self.out.ended += (time + self.round.serial,)
            self.out.computed += self.round.serial
            self.at(time + self.round.serial, self.begin_round)

    # --- lost machines -----------------------------------------------------------------------------------------------

    def lose(self, time: float, machine: int, random: bool) -> None:
        cores = self.cluster.cores
        for worker in self.workers[machine * cores : (machine + 1) * cores]:
            task = worker.task
            if worker.up and task is not None:
                each = task.seconds / self.round.pieces
                done = (worker.piece - task.safe) * each
                if worker.began < NEVER:
                    done += (time - worker.began) / worker.pace
                self.out.repeated += done
                self.at(time + self.trouble.detection, self.begin_again, task)
            worker.up = worker.started = False
            worker.life += 1
            worker.task = None
            worker.began = NEVER
        self.at(time + self.trouble.repair, self.come_back, machine)
        if random:
            following = time + self.trouble.repair + self.lives.exponential(self.trouble.lifetime)
            self.at(following, self.lose, machine, True)

    def begin_again(self, time: float, task: _Task) -> None:
        """The driver notes that a task's machine is lost."""
        if task.retries == self.trouble.retries:
            self.out.failed += 1
            self.count_down(time)
            return
        task.retries += 1
        self.out.retried += 1
        self.waiting.appendleft(task)
        self.dispatch(time)

    def come_back(self, time: float, machine: int) -> None:
        cores = self.cluster.cores
        for worker in self.workers[machine * cores : (machine + 1) * cores]:
            if not worker.up:
                worker.up = True
                if worker not in self.idle:
                    self.idle.append(worker)
        self.dispatch(time)


def simulate(rounds: Sequence[Round], cluster: Cluster, trouble: Trouble | None = None, seed: int = 0) -> Outcome:
    """Play rounds of tasks on a cluster. The result depends on the arguments alone.

    Raises ValueError if a number makes no sense.
    """
    trouble = trouble or Trouble()
    _check(rounds, cluster, trouble)
    return _Simulation(rounds, cluster, trouble, seed).run()


def _check(rounds: Sequence[Round], cluster: Cluster, trouble: Trouble) -> None:
    if cluster.machines < 1 or cluster.cores < 1:
        raise ValueError(f"a cluster has at least one machine and one core, got {cluster.machines} and {cluster.cores}")
    for one in rounds:
        if not len(one.seconds) or min(one.seconds) < 0:
            raise ValueError("a round has at least one task, and no task takes less than 0 seconds")
        if one.pieces < 1 or one.checkpoints < 0:
            raise ValueError(f"a task has at least one piece and 0 or more checkpoints, got {one.pieces} and {one.checkpoints}")
    times = (cluster.start, cluster.dispatch, cluster.receive, cluster.message, cluster.latency, trouble.delay)
    if min(*times, trouble.repair, trouble.detection, trouble.retries) < 0:
        raise ValueError("times and retries are 0 or more")
    if cluster.bandwidth <= 0 or trouble.lifetime <= 0 or cluster.slowdown < 1 or trouble.factor < 1:
        raise ValueError("bandwidth and lifetime are above 0, slowdown and factor at least 1")
    if not 0 <= trouble.stragglers <= 1:
        raise ValueError(f"the probability of a straggler is between 0 and 1, got {trouble.stragglers}")
    for _, machine in trouble.losses:
        if not 0 <= machine < cluster.machines:
            raise ValueError(f"machine {machine} is lost, but the machines are 0 to {cluster.machines - 1}")
