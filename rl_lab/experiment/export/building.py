"""The `Graph` of an agent's greedy policy."""

from typing import TYPE_CHECKING

import numpy as np
from gymnasium.spaces import Box, Dict, Tuple

import rl_lab as rl
from rl_lab.experiment.environments import copy_for_evaluation, make_environments
from rl_lab.experiment.export.graph import FLOAT, INT, Graph, Node, Operand, Output, Ref
from rl_lab.experiment.export.recording import record
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.vector import close_environments
from rl_lab.rollout import Stepper

if TYPE_CHECKING:
    from rl_lab.experiment.agent import Agent


def is_masked(agent: "Agent") -> bool:
    """Whether the agent's environments give action masks."""
    if not agent.mapping.num_masked:
        return False
    if agent.collector is not None:
        return agent.collector.action_mask is not None
    if agent.setup is None:
        return False
    envs = make_environments(copy_for_evaluation(agent.setup), 1)
    try:
        stepper = Stepper(envs)
        stepper.reset(0)
        return stepper.action_mask is not None
    finally:
        close_environments(envs)


def policy_graph(agent: "Agent") -> Graph:
    """Record an agent's greedy policy, from one observation, as the agent sees it, to an action of its space.

    An action of a Tuple or Dict space is one row of numbers, its choices first. Raises Fault, naming the operation, if a part of the
    policy has no translation.
    """
    who = type(agent).__name__
    mapping = agent.mapping
    if mapping.is_fine:
        raise Fault(f"{who} cannot be exported: the actions of {agent.space} are scaled in float64")
    function, memory = agent.greedy_step()
    starts, count = mapping.starts, len(mapping.choices)
    shift = rl.tensor(starts)

    def policy(*given: rl.Tensor | None) -> tuple[rl.Tensor, ...]:
        with rl.no_grad():
            actions, *after = function(*given)
            if mapping.size == 0:
                actions = actions.reshape(1, count).long() + shift
            elif count and starts.any():
                rows = actions.reshape(1, count + mapping.size)
                actions = rl.cat([rows[:, :count] + shift.float(), rows[:, count:]], 1)
            return actions, *after

    dtypes = {np.dtype(np.uint8): rl.uint8, np.dtype(bool): rl.bool}
    dtype = dtypes.get(np.dtype(agent.observation_dtype), rl.float32)
    observation = rl.zeros(1, *agent.shape, dtype=dtype)
    mask = rl.ones(1, mapping.num_masked, dtype=rl.bool) if is_masked(agent) else None
    inputs: dict[str, rl.Tensor | None] = {"observation": observation}
    inputs |= {f"memory{i}": part.clone() for i, part in enumerate(memory)}
    graph, operands = record(who, policy, {**inputs, "action_mask": mask})
    action, *after = operands
    # parts of a Tuple or Dict stand in one row, the choices first
    shape: tuple[int, ...] = (count + mapping.size,) if isinstance(agent.space, (Tuple, Dict)) else tuple(agent.space.shape)
    graph.outputs = [Output(action, "action", shape, FLOAT if mapping.size else INT)]
    graph.outputs += [
        Output(a, f"memory{i}", tuple(m.shape[1:]), FLOAT) for i, (a, m) in enumerate(zip(after, memory, strict=True))
    ]
    graph.memory = [part.numpy().copy() for part in memory]
    graph.title = f"The greedy policy of {who} after {agent.timesteps:,} steps."
    graph.action_dtype = None if agent.space.dtype is None else np.dtype(agent.space.dtype)
    graph.bounds = (agent.space.low, agent.space.high) if isinstance(agent.space, Box) else ()
    graph = graph.without_dead_nodes()
    _add_scores(graph)
    return graph


def _add_scores(graph: Graph) -> None:
    """Let what the arg max is taken of be an output: the values or log-probabilities of the options of all choices."""
    scored = [node.operands[0] for node in graph.nodes if node.kind == "argmax"]
    if not scored:
        return
    sizes = [int(np.prod(operand.shape)) for operand in scored]
    whole: Operand = scored[0]
    if len(scored) > 1:
        number = len(graph.values)
        graph.values[number] = type(graph.values[0])(sum(sizes), FLOAT)
        graph.nodes.append(Node("take", number, tuple(scored), (sum(sizes),), FLOAT, index=np.arange(sum(sizes))))
        whole = Ref(number, (sum(sizes),))
    graph.outputs.append(Output(whole, "scores", (sum(sizes),), FLOAT))
