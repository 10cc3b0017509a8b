"""Nothing that is not finite is learned from: names for an agent's numbers, and guards on its optimisers.

`guard_updates` finds the numbers in the parts that an agent declares, so agents need no code for it. A guard looks at all of them in
one launch before each step of an optimiser, see `rl_lab.optim.guard`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import rl_lab as rl
from rl_lab.engine.dtype import float32
from rl_lab.engine.errors import NumericalError
from rl_lab.experiment.parts import DataPart
from rl_lab.optim.guard import Guard

if TYPE_CHECKING:
    from rl_lab.experiment.agent import Agent

HINT = "lower the learning rate or clip harder"


class Numbers(NamedTuple):
    """The numbers of an agent's parts, by name: tensors, optimisers, and parts that hold data, such as replay."""

    tensors: list[tuple[str, rl.Tensor]]
    optimizers: list[tuple[str, rl.optim.Optimizer]]
    data: list[tuple[str, DataPart]]


def numbers_of(agent: "Agent") -> Numbers:
    """The numbers of all parts that an agent declares; those inside a part are found if it has a ``state_dict``."""
    found = Numbers([], [], [])
    seen: set[int] = set()
    for name in (*agent.learned, *agent.saved):
        _walk(getattr(agent, name), name, found, seen)
    return found


def _walk(part: Any, name: str, found: Numbers, seen: set[int]) -> None:
    if part is None or isinstance(part, (bool, int, float, str)) or id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, rl.Tensor):
        if part.dtype is float32:
            found.tensors.append((name, part))
    elif isinstance(part, rl.nn.Module):
        inner = [*part.named_parameters(), *part.named_buffers()]
        found.tensors.extend([(f"{name}.{own}", x) for own, x in inner if x.dtype is float32 and id(x) not in seen])
        seen.update(id(x) for _, x in inner)
    elif isinstance(part, rl.optim.Optimizer):
        found.optimizers.append((name, part))
    elif isinstance(part, (dict, list, tuple)):
        entries = part.items() if isinstance(part, dict) else enumerate(part)
        for key, value in entries:
            _walk(value, f"{name}.{key}", found, seen)
    elif isinstance(part, DataPart):
        found.data.append((name, part))
    elif hasattr(part, "state_dict"):
        for key, value in vars(part).items():
            if isinstance(value, (rl.Tensor, rl.nn.Module, rl.optim.Optimizer)) or hasattr(value, "state_dict"):
                _walk(value, f"{name}.{key.lstrip('_')}", found, seen)


def guard_updates(agent: "Agent") -> Guard:
    """Guard the optimisers among an agent's parts: a step raises NumericalError, before a weight changes, if a number is not finite."""
    numbers = numbers_of(agent)
    updated = {id(p) for _, optimizer in numbers.optimizers for group in optimizer.param_groups for p in group["params"]}
    names = {id(x): name for name, x in numbers.tensors}
    others = [(name, x) for name, x in numbers.tensors if id(x) not in updated]
    return Guard(
        numbers.optimizers,
        names,
        [(name, x) for name, x in others if not isinstance(x, rl.nn.Parameter)],
        [(name, x) for name, x in others if isinstance(x, rl.nn.Parameter)],
        lambda name: not_finite_error(agent, name),
    )


def not_finite_error(agent: "Agent", name: str) -> NumericalError:
    """The error for a number that is not finite. Where a loss or gradient was noticed first, its cause is looked for and named."""
    cause = next(first_sources(agent), name) if name.startswith("the ") else name
    return NumericalError(f"{cause} is not finite at step {agent.timesteps}: {_too_large(agent, cause) or HINT}")


def _too_large(agent: "Agent", name: str) -> str:
    """Name the observation that is too large for float32 if a running mean or variance is not finite; empty for other tensors."""
    if "moments" not in name.split("."):
        return ""
    if not name.startswith("moments.") or agent.collector is None:
        return "the rewards or observations are too large for their squares in float32: scale them in the environment"
    seen = agent.collector.stepper.observations
    place = np.unravel_index(int(np.abs(seen).argmax()), seen.shape)
    where = "".join(f"[{i}]" for i in place[1:])
    return f"observation{where} is {seen[place]:.3g}, too large for its square in float32: scale the observations in the environment"


def first_sources(agent: "Agent") -> Iterator[str]:
    """Names of the numbers of an agent that are not finite: data first, then tensors, then the state of optimisers."""
    numbers = numbers_of(agent)
    for name, data in numbers.data:
        inside = data.first_not_finite()
        if inside:
            yield f"{inside} in {name}"
    for name, tensor in numbers.tensors:
        if not np.isfinite(tensor.detach().numpy()).all():
            yield name
    names = {id(tensor): name for name, tensor in numbers.tensors}
    for owner, optimizer in numbers.optimizers:
        for parameter, state in optimizer.state.items():
            for kind, tensor in state.items():
                if tensor.dtype is float32 and not np.isfinite(tensor.numpy()).all():
                    yield f"{kind} of {names.get(id(parameter), 'a parameter')} in {owner}"
