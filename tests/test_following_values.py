"""Values of next observations without a second pass over the rollout."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.agents.ppo import PPO
from rl_lab.experiment import evaluation
from rl_lab.rollout import following_values


@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1", "rl_lab/ProbeEndless-v0"])
@pytest.mark.parametrize("backend", ["native", "gymnasium"])
@pytest.mark.parametrize(("num_envs", "steps"), [(3, 40), (1, 1), (2, 210)])
def test_they_equal_the_values_of_all_next_observations(env, backend, num_envs, steps):
    agent = PPO(env, backend=backend, num_envs=num_envs, num_steps=steps, batch_size=steps * num_envs, preset=False, seed=3)
    for _ in range(2):
        rollout = agent.collector.collect(steps).tensors()
        with rl.no_grad():
            values = agent.value(rollout["observations"].flatten(0, 1)).reshape(steps, num_envs)
            found = following_values(agent.value, values, rollout).numpy()
            direct = agent.value(rollout["next_observations"].flatten(0, 1)).reshape(steps, num_envs).numpy()
        matter = ~rollout["terminated"].numpy()
        np.testing.assert_allclose(found[matter], direct[matter], atol=1e-5)
    if env == "rl_lab/ProbeEndless-v0" and steps > 5:  # episodes are truncated after 5 steps
        rows = rollout["bootstrap_rows"].numpy()
        assert len(rows) in (8, 64, 512)
        cut = set(np.flatnonzero(rollout["truncated"].numpy()[:-1]))
        assert cut <= set(rows) <= cut | {num_envs * steps - 1}


def test_seeds_stay_below_32_bits():
    for seed in (0, 1, 2146, 2147, 12345, 2**40):
        for first in (evaluation.evaluation_seed(seed), evaluation.validation_seed(seed)):
            assert first >= 0
            assert first + 1_000_000 <= 2**32
    assert evaluation.evaluation_seed(1) == 3_000_000  # figures of earlier runs are comparable
