"""Every setting of every agent has an effect: with another value the same seed gives other results."""

import dataclasses
import functools

import pytest
from gymnasium.spaces import Box

from rl_lab.agents import neat
from rl_lab.experiment.environments import make_environments
from tests.agents.test_contract import AGENTS, content
from tests.agents.test_neat import EVERYTHING, fitness
from tests.agents.test_neat_evolution import digest

STEPS = 160
BASE = {
    "total_timesteps": 300,
    "network": "mlp:8",
    "learning_rate": 1e-2,
    "learning_rate_final": 0.5,
    "batch_size": 8,
    "buffer_size": 64,
    "learning_starts": 16,
    "target_update_interval": 20,
    "exploration_fraction": 0.5,
    "train_frequency": 4,
    "quantiles": 4,
    "sequence_length": 4,
    "burn_in": 3,
    "critic_network": "mlp:8",
    "norm_momentum": 0.1,
    "norm_warmup": 4,
    "tau": 0.5,
    "num_steps": 16,
    "epochs": 2,
    "batch_envs": 2,
    "memory": 4,
    "max_grad_norm": 0.1,
    "directions": 2,
    "pairs": 2,
    "population": 4,
    "compile": False,
}
"""Settings of the first run; an agent gets only the settings in its Config."""
OF_AGENT = {
    "dqn": {"prioritized": True, "tau": 1.0},
    "drqn": {"tau": 1.0},
    "qrdqn": {"tau": 1.0, "prioritized": True},
    "sac": {"noise_colour": 0.2},
    "td3": {"noise_colour": 0.2},
    "tqc": {"dropped": 1},
    "crossq": {"noise_colour": 0.2, "policy_delay": 2},
    "es": {"noise": 1.0},
    "bc": {"dataset": "random:120"},
    "iql": {"dataset": "random:120"},
}
OTHER = {
    "total_timesteps": 200,
    "network": "mlp:6",
    "activation": "silu",
    "learning_rate": 2e-2,
    "learning_rate_final": 0.1,
    "batch_size": 4,
    "buffer_size": 48,
    "learning_starts": 32,
    "train_frequency": 8,
    "gradient_steps": 2,
    "gamma": 0.7,
    "n_steps": 3,
    "tau": 0.3,
    "target_update_interval": 60,
    "max_grad_norm": 0.05,
    "quantiles": 5,
    "memory": 5,
    "cell": "cfc",
    "exploration_initial": 0.5,
    "exploration_final": 0.5,
    "exploration_fraction": 1.0,
    "loss": "mse",
    "double": False,
    "dueling": True,
    "prioritized": False,
    "priority_exponent": 0.2,
    "importance_exponent": 0.9,
    "noisy": True,
    "num_steps": 24,
    "epochs": 3,
    "gae_lambda": 0.5,
    "clip_range": 0.01,
    "clip_range_final": 0.01,
    "clip_value": 0.01,
    "entropy_coefficient": 0.5,
    "value_coefficient": 2.0,
    "normalize_advantages": "not",
    "target_kl": 1e-9,
    "log_std": -1.0,
    "state_dependent_std": True,
    "normalize_observations": "not",
    "normalize_rewards": "not",
    "batch_envs": 1,
    "shared": "not",
    "optimizer": "adam",
    "baseline": False,
    "baseline_steps": 1,
    "normalize_returns": False,
    "temperature": 0.1,
    "learn_temperature": False,
    "target_entropy": 0.3,
    "target_entropy_final": 0.2,
    "noise_colour": 0.9,
    "policy_delay": 3,
    "exploration_noise": 0.5,
    "target_noise": 0.5,
    "noise_clip": 0.05,
    "dataset": "random:100",
    "expectile": 0.95,
    "inverse_temperature": 0.1,
    "largest_weight": 0.5,
    "reward_scale": 5.0,
    "critics": 3,
    "critic_network": "mlp:7",
    "norm_momentum": 0.3,
    "norm_warmup": 9,
    "adam_beta1": 0.9,
    "layer_norm": False,
    "sequence_length": 5,
    "burn_in": 1,
    "distribution": "categorical",
    "value_min": -3.0,
    "value_max": 30.0,
    "return_lambda": 0.2,
    "dropped": 2,
    "use_sde": True,
    "sde_sample_freq": 2,
    "step_size": 0.3,
    "directions": 3,
    "top_directions": 1,
    "noise": 0.3,
    "episodes": 2,
    "reward_offset": 2.0,
    "pairs": 3,
    "weight_decay": 0.5,
    "population": 6,
    "covariance": "diagonal",
}
CHANGED_WITH = {
    "buffer_size": {"total_timesteps": 300},
    "clip_range_final": {"clip_range": 0.05},
    "n_steps": {"gamma": 0.9},
    "double": {"target_update_interval": 1000, "gradient_steps": 9},
    "value_min": {"distribution": "categorical"},
    "value_max": {"distribution": "categorical"},
    "use_sde": {"noise_colour": 0.0},
    "sde_sample_freq": {"noise_colour": 0.0, "use_sde": True},
    "log_std": {"noise_colour": 0.0, "use_sde": True},
}
SAME = {"compile", "separate_losses", "evaluation"}
"""Settings that must not change the results."""
LENGTH_ALONE = {("ars", "total_timesteps"), ("cmaes", "total_timesteps")}
"""Agents without schedules: the total is where the training ends."""
CASES = [
    (name, field.name)
    for name, agent in AGENTS.items()
    if name != "neat"
    for field in dataclasses.fields(agent.Config)
    if field.name not in SAME and (name, field.name) not in LENGTH_ALONE
]


@functools.cache
def learned(name: str, env: str, changes: tuple) -> dict[str, bytes]:
    """The bytes of the learned parameters after some steps, by name."""
    agent_class = AGENTS[name]
    fields = {field.name for field in dataclasses.fields(agent_class.Config)}
    given = {key: value for key, value in {**BASE, **OF_AGENT.get(name, {})}.items() if key in fields}
    agent = agent_class.create(agent_class.Config(**{**given, **dict(changes)}), make_environments(env, 2), 5)
    while agent.timesteps < STEPS:
        agent.step()
    state = agent.state_dict()
    left_out = (
        "optimizer",
        "normalization",
        "moments",
        "replay",
        "collector",
        "stream",
        "noise",
        "action_stream",
        "exploration",
        "timesteps",
        "updates",
        "age",
    )
    return content({key: part for key, part in state.items() if not any(word in key for word in left_out)})


@pytest.mark.parametrize(("name", "field"), CASES)
def test_a_setting_counts(name, field):
    agent_class = AGENTS[name]
    value = OTHER[field]
    if value == "not":
        value = not agent_class.Config.__dataclass_fields__[field].default
    if field == "double" and name == "qrdqn":
        value = True
    names = {own.name for own in dataclasses.fields(agent_class.Config)}
    given = {key: other for key, other in CHANGED_WITH.get(field, {}).items() if key in names}
    sde = "sde" in field or given.get("use_sde", False)  # of real-valued actions
    environments = ["CartPole-v1"] * (
        not sde and (Box is not agent_class.action_spaces[0] or len(agent_class.action_spaces) > 1)
    )
    environments += ["Pendulum-v1"] * (Box in agent_class.action_spaces)
    for env in environments:
        base = learned(name, env, tuple(given.items()))
        if learned(name, env, (*given.items(), (field, value))) != base:
            return
    pytest.fail(f"{field} = {value!r} changes nothing")


# --- evolution -------------------------------------------------------------------------------------------------------

EVOLVING = EVERYTHING | {"population": 40, "stagnation": 4, "elitism_from": 2, "mate_only": 0.3}
OTHER_EVOLUTION = {
    "population": 41,
    "recurrent": True,
    "activation": "tanh",
    "output_activation": "tanh",
    "aggregation": "product",
    "activation_options": ("relu",),
    "initial_hidden": 1,
    "initially_connected": 0.5,
    "excess_coefficient": 0.2,
    "disjoint_coefficient": 0.2,
    "weight_coefficient": 1.0,
    "compatibility_threshold": 1.0,
    "species_target": 3,
    "normalize_from": 1,
    "selection": "nsga2",
    "survival_threshold": 0.6,
    "elitism_from": 1000,
    "stagnation": 2,
    "population_stagnation": 3,
    "restart": 3,
    "mutate_only": 0.7,
    "mate_only": 0.8,
    "interspecies_mating": 0.7,
    "inherit_disabled": 0.1,
    "mutate_weights": 0.3,
    "perturb_weight": 0.2,
    "weight_power": 0.3,
    "weight_range": 1.0,
    "weight_limit": 2.0,
    "add_node": 0.05,
    "add_connection": 0.05,
    "toggle_enabled": 0.4,
    "delete_node": 0.4,
    "delete_connection": 0.4,
    "mutate_activation": 0.7,
    "threshold_step": 0.5,
}
EVOLVED_WITH = {"threshold_step": {"species_target": 3}}


@functools.cache
def evolved(changes: tuple) -> str:
    evolution = neat.Evolution(2, 1, neat.NEATConfig(**{**EVOLVING, **dict(changes)}), seed=3)
    for _ in range(25):
        evolution.advance(fitness(evolution.networks()))
    return digest(evolution)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(neat.NEATConfig)])
def test_a_setting_of_evolution_counts(field):
    given = tuple(EVOLVED_WITH.get(field, {}).items())
    assert evolved((*given, (field, OTHER_EVOLUTION[field]))) != evolved(given)
