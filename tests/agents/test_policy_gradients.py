"""PPO, A2C, REINFORCE, PQN, SAC, TQC, CrossQ and TD3 on probes with known optima, and their losses by hand."""

import dataclasses
import math

import gymnasium as gym
import numpy as np
import pytest

import rl_lab as rl
from rl_lab.agents.a2c import A2C, A2CConfig
from rl_lab.agents.crossq import CrossQ, CrossQConfig
from rl_lab.agents.ppo import PPO, PPOConfig, RolloutBatch
from rl_lab.agents.pqn import PQN, PQNConfig
from rl_lab.agents.qrdqn import QRDQN, RAINBOW, QRDQNConfig, quantile_huber_loss
from rl_lab.agents.reinforce import REINFORCE, REINFORCEConfig
from rl_lab.agents.sac import SAC, SACConfig
from rl_lab.agents.td3 import TD3, TD3Config
from rl_lab.agents.tqc import TQC, TQCConfig
from rl_lab.experiment.environments import make_environments
from rl_lab.rollout import Batch

PLAIN = PPOConfig(
    *(100_000, "mlp:16"),
    learning_rate=1e-2,
    num_steps=32,
    batch_size=64,
    epochs=4,
    gamma=0.9,
    normalize_observations=False,
    normalize_rewards=False,
)
"""Without normalization, so that the critic's outputs are returns."""
ON_POLICY = {
    "ppo": (PPO, PLAIN, 60),
    "a2c": (A2C, A2CConfig(num_steps=8, learning_rate=3e-3, gamma=0.9, shared=True, network="mlp:16"), 600),
    "a2c-separate": (
        A2C,
        A2CConfig(num_steps=8, learning_rate=3e-3, gamma=0.9, shared=True, separate_losses=True, network="mlp:16"),
        600,
    ),
    "a2c-apart": (A2C, A2CConfig(num_steps=8, learning_rate=3e-3, gamma=0.9, shared=False, network="mlp:16"), 600),
    "reinforce": (REINFORCE, REINFORCEConfig(learning_rate=2e-2, gamma=0.9, network="mlp:16"), 150),
    "reinforce-plain": (REINFORCE, REINFORCEConfig(learning_rate=2e-2, gamma=0.9, baseline=False, network="mlp:16"), 150),
}
SOFT = SACConfig(
    *(2000, "mlp:16"),
    learning_rate=1e-2,
    batch_size=32,
    learning_starts=50,
    gamma=0.9,
    tau=0.1,
    temperature=0.02,
    learn_temperature=False,
)
TWIN = TD3Config(
    3000, "mlp:16", "tanh", learning_rate=1e-2, learning_rate_final=0.1, batch_size=32, learning_starts=50, gamma=0.9, tau=0.1
)

TRUNCATED = TQCConfig(
    *(2000, "mlp:16"),
    learning_rate=1e-2,
    batch_size=32,
    learning_starts=50,
    gamma=0.9,
    tau=0.1,
    temperature=0.02,
    learn_temperature=False,
    quantiles=8,
    dropped=1,
)

CROSSED = CrossQConfig(
    *(2000, "mlp:16", "mlp:16"),
    learning_rate=1e-2,
    learning_rate_final=0.1,
    batch_size=32,
    learning_starts=50,
    gamma=0.9,
    temperature=0.02,
    learn_temperature=False,
    norm_warmup=500,
)

PQN_PROBES = [
    ("ActionReward", (0.0,), [[-1.0, 1.0]]),
    ("MatchReward", (1.0, -1.0), [[-1.0, 1.0], [1.0, -1.0]]),
    ("DelayedReward", (0.0, 1.0), [[0.9, 0.9], [1.0, 1.0]]),
]


def trained(name: str, probe: str, seed: int, **changes):
    kind, config, steps = ON_POLICY[name]
    envs = make_environments(probe if "/" in probe else f"rl_lab/Probe{probe}-v0", 8)
    agent = kind.create(dataclasses.replace(config, **changes), envs, seed)
    for _ in range(steps):
        agent.step()
    return agent


def value(agent, *observation: float) -> float:
    with rl.no_grad():
        x = rl.tensor([list(observation)])
        if isinstance(agent, PPO):
            return agent.critic(x).item()
        return agent.critic(agent.features(x)).item()


def probability(agent, action: int, *observation: float) -> float:
    with rl.no_grad():
        x = rl.tensor([list(observation)])
        outputs = agent.actor(agent.features(x)) if isinstance(agent, A2C) else agent.actor(x)
        return outputs.softmax(1)[0, action].item()


# --- probes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ppo", "a2c", "a2c-separate", "a2c-apart"])
def test_values(name, learning_seed, learned):
    learned(value(trained(name, "ConstantReward", learning_seed), 0.0), 1.0, within=0.05, what="constant")
    agent = trained(name, "ObservedReward", learning_seed)
    learned((value(agent, 1.0), value(agent, -1.0)), (1.0, -1.0), within=0.15, what="observed")
    agent = trained(name, "DelayedReward", learning_seed)
    learned((value(agent, 0.0), value(agent, 1.0)), (0.9, 1.0), within=0.1, what="delayed")


@pytest.mark.parametrize("name", ["ppo", "a2c"])
def test_a_truncated_episode_goes_on(name, learning_seed, learned):
    """The value is 1 / (1 - 0.8) = 5, although episodes are truncated after 5 steps; without bootstrapping it would be 3.36."""
    agent = trained(name, "Endless", learning_seed, gamma=0.8)
    learned(value(agent, 0.0), 5.0, within=0.4)


@pytest.mark.parametrize("name", ON_POLICY)
def test_policies(name, learning_seed, learned):
    learned(probability(trained(name, "ActionReward", learning_seed), 1, 0.0), 1.0, within=0.1, what="action")
    agent = trained(name, "MatchReward", learning_seed)
    learned((probability(agent, 1, 1.0), probability(agent, 0, -1.0)), (1.0, 1.0), within=0.1, what="match")


class Target(gym.Env):
    """Episodes of one step. The reward is minus the squared distance between the action and half the observed sign."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.sign = float(self.np_random.integers(2) * 2 - 1)
        return np.array([self.sign], np.float32), {}

    def step(self, action):
        return np.array([self.sign], np.float32), -float((action[0] - 0.5 * self.sign) ** 2), True, False, {}


class Several(Target):
    """Episodes of one step with two choices. The reward counts right choices: option 1 of 2, and option 2 of 3."""

    action_space = gym.spaces.MultiDiscrete([2, 3])

    def step(self, action):
        return np.array([self.sign], np.float32), float(action[0] == 1) + float(action[1] == 2), True, False, {}


for probe in (Target, Several):
    gym.register(f"probe/{probe.__name__}-v0", entry_point=probe)


@pytest.mark.parametrize(
    "changes", [{}, {"state_dependent_std": True, "learning_rate": 3e-3, "total_timesteps": 15_360}], ids=str
)
@pytest.mark.parametrize("name", ["ppo", "a2c"])
def test_continuous_actions(name, changes, learning_seed, learned):
    agent = trained(name, "probe/Target-v0", learning_seed, log_std=-1.0, learning_rate_final=0.1, **changes)
    actions = agent.act(np.array([[1.0], [-1.0]], np.float32), deterministic=True)
    learned(actions.ravel(), [0.5, -0.5], within=0.15)


@pytest.mark.parametrize("name", ["ppo", "a2c", "reinforce"])
def test_several_choices_at_once(name, learning_seed):
    agent = trained(name, "probe/Several-v0", learning_seed)
    assert agent.act(np.zeros((2, 1), np.float32), deterministic=True).tolist() == [[1, 2], [1, 2]]


@pytest.mark.parametrize(("probe", "given", "expected"), PQN_PROBES)
def test_parallel_q_learning_finds_the_values(probe, given, expected, learning_seed, learned):
    config = PQNConfig(
        20_000,
        "mlp:16",
        learning_rate=1e-2,
        learning_rate_final=0.05,
        num_steps=16,
        batch_size=32,
        gamma=0.9,
        exploration_final=0.5,
    )
    agent = PQN.create(config, make_environments(f"rl_lab/Probe{probe}-v0", 8), learning_seed)
    while agent.timesteps < config.total_timesteps:
        agent.step()
    with rl.no_grad():
        values = agent.q_values(rl.tensor([[x] for x in given])).numpy()
    learned(values, expected, within=0.2)


@pytest.mark.parametrize(
    ("kind", "config"), [(SAC, SOFT), (TD3, TWIN), (TQC, TRUNCATED), (CrossQ, CROSSED)], ids=["sac", "td3", "tqc", "crossq"]
)
def test_off_policy_actors_find_the_target(kind, config, learning_seed, learned):
    agent = kind.create(config, make_environments("probe/Target-v0", 1), learning_seed)
    while agent.timesteps < config.total_timesteps:
        agent.step()
    actions = agent.act(np.array([[1.0], [-1.0]], np.float32), deterministic=True)
    learned(actions.ravel(), [0.5, -0.5], within=0.1)


def test_soft_actor_critic_with_discrete_actions(learning_seed, learned):
    agent = SAC.create(SOFT, make_environments("rl_lab/ProbeMatchReward-v0", 1), learning_seed)
    while agent.timesteps < SOFT.total_timesteps:
        agent.step()
    assert agent.act(np.array([[1.0], [-1.0]], np.float32), deterministic=True).tolist() == [1, 0]
    with rl.no_grad():
        q = agent.critics[0](rl.tensor([[1.0], [-1.0]])).numpy()
    learned(q, [[-1.0, 1.0], [1.0, -1.0]], within=0.2)


def test_quantiles_of_a_coin(learning_seed, learned):
    """The reward is 1 or -1 at random. The learned quantiles are those of the rewards in the replay, which the seed decides."""
    config = QRDQNConfig(
        2000, "mlp:16", quantiles=4, learning_rate=1e-2, learning_rate_final=0.1, learning_starts=50, train_frequency=1
    )
    agent = QRDQN.create(config, make_environments("probe/Coin-v0", 1), learning_seed)
    while agent.timesteps < config.total_timesteps:
        agent.step()
    with rl.no_grad():
        quantiles = np.sort(agent.quantiles(agent.network, rl.tensor([[0.0]])).numpy()[0], 1)
    size = len(agent.replay)
    actions, rewards = agent.replay.arrays.actions[:size], agent.replay.arrays.rewards[:size]
    wins = [(rewards[actions == action] > 0).mean() for action in (0, 1)]
    learned(quantiles, [[quantile_of_a_coin(f, p) for f in (1 / 8, 3 / 8, 5 / 8, 7 / 8)] for p in wins], within=0.1)


def test_probabilities_of_a_coin(learning_seed, learned):
    """With the settings of Rainbow the agent learns the share of each reward in the replay."""
    changes = {
        "total_timesteps": 2000,
        "network": "mlp:16",
        "learning_rate": 1e-2,
        "learning_rate_final": 0.1,
        "learning_starts": 50,
    }
    rainbow = RAINBOW | {"quantiles": 5, "value_min": -2.0, "value_max": 2.0, "normalize_rewards": False}
    config = QRDQNConfig(**rainbow, **changes, train_frequency=1, priority_exponent=0.0)
    agent = QRDQN.create(config, make_environments("probe/Coin-v0", 1), learning_seed)
    while agent.timesteps < config.total_timesteps:
        agent.step()
    agent.network.eval()
    with rl.no_grad():
        probabilities = agent.quantiles(agent.network, rl.tensor([[0.0]])).softmax(2).numpy()[0]
    size = len(agent.replay)
    actions, rewards = agent.replay.arrays.actions[:size], agent.replay.arrays.rewards[:size]
    best = int(np.bincount(actions, minlength=2).argmax())  # noisy layers hardly try the other action
    wins = (rewards[actions == best] > 0).mean()
    learned(probabilities[best], [0.0, 1 - wins, 0.0, wins, 0.0], within=0.1)


def quantile_of_a_coin(f: float, p: float) -> float:
    """The minimum of the quantile Huber loss of fraction ``f`` where the reward is 1 with probability ``p`` and otherwise -1.

    At a minimum q < 0 the derivatives p f of the part for reward 1, and (1 - p) (1 - f) (1 + q) of the other part, are equal.
    """
    up, down = p * f, (1 - p) * (1 - f)
    return up / down - 1 if up < down else 1 - down / up


class Coin(Target):
    """Episodes of one step. The reward is a random sign that the observation does not show."""

    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), self.sign, True, False, {}


gym.register("probe/Coin-v0", entry_point=Coin)


# --- losses by hand --------------------------------------------------------------------------------------------------


def ppo(**changes) -> PPO:
    config = PPOConfig(network="mlp:", num_steps=2, batch_size=2, compile=False, normalize_advantages=False, **changes)
    agent = PPO.create(config, make_environments("rl_lab/ProbeActionReward-v0", 1), 1)
    agent.actor.load_state_dict({"0.weight": np.zeros((2, 1)), "0.bias": np.log([0.25, 0.75])})
    agent.critic.load_state_dict({"0.weight": np.zeros((1, 1)), "0.bias": np.ones(1)})
    return agent


def ppo_batch(log_probs: list[float], advantages: list[float]) -> RolloutBatch:
    zeros = rl.zeros(2, 1)
    return RolloutBatch(
        zeros,
        rl.tensor([1, 0]),
        rl.tensor(log_probs),
        rl.tensor([0.5, 3.0]),
        rl.tensor(advantages),
        rl.tensor([2.0, 2.0]),
        None,
        None,
    )


@pytest.mark.parametrize(
    ("advantages", "expected"),
    [
        (
            [2.0, 1.0],
            -(1.2 * 2.0 + 0.5 * 1.0) / 2,
        ),  # positive advantages: only the ratio 1.5 is clipped, to 1.2
        (
            [-2.0, -1.0],
            -(1.5 * -2.0 + 0.8 * -1.0) / 2,
        ),  # negative advantages: only the ratio 0.5 is clipped, to 0.8
    ],
)
def test_the_clipped_surrogate(advantages, expected):
    """The old probability of both actions is 0.5, so the ratios are 1.5 and 0.5."""
    loss, _, entropy, (kl, clipped) = ppo().compute_loss(ppo_batch([math.log(0.5)] * 2, advantages))
    assert loss.item() == pytest.approx(expected)
    assert entropy.item() == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    assert kl.item() == pytest.approx((0.5 - math.log(1.5) - 0.5 - math.log(0.5)) / 2, abs=1e-6)
    assert clipped.item() == 1.0


def test_value_losses():
    """Values are 1, returns 2, old values 0.5 and 3. A clip range of 0.2 limits the values to 0.7 and 2.8."""
    batch = ppo_batch([math.log(0.5)] * 2, [1.0, 1.0])
    assert ppo().compute_loss(batch)[1].item() == pytest.approx(0.5)
    assert ppo(clip_value=0.2).compute_loss(batch)[1].item() == pytest.approx(0.5 * (1.3**2 + 1.0) / 2)


def test_two_backwards_over_one_graph_equal_the_sum_of_losses():
    """Separate backward passes accumulate the gradient of the sum of losses, up to rounding; both losses reach the trunk."""
    gradients = {}
    for separate in (False, True):
        agent = A2C.create(
            A2CConfig(network="mlp:8,8", separate_losses=separate, compile=False), make_environments("CartPole-v1", 4), 7
        )
        made = agent.collector.collect(5)
        names = ("observations", "actions", "rewards", "terminated", "truncated", "next_observations")
        rollout = {name: rl.from_numpy(getattr(made, name)) for name in names}
        norms = agent.backward(*agent.compute_losses(rollout))
        gradients[separate] = [p.grad.numpy().copy() for p in agent.parameters]
    for together, apart in zip(gradients[False], gradients[True], strict=True):
        assert apart == pytest.approx(together, rel=1e-4, abs=1e-7)
    assert len(norms) == 2
    assert all(norm.item() > 0 for norm in norms)


def test_soft_target_by_hand():
    """The target is r + discount * (min Q' - alpha log pi), in expectation over the actions."""
    agent = SAC.create(
        dataclasses.replace(SOFT, network="mlp:", temperature=0.5, compile=False),
        make_environments("rl_lab/ProbeActionReward-v0", 1),
        1,
    )
    agent.actor.load_state_dict({"0.weight": np.zeros((2, 1)), "0.bias": np.log([0.25, 0.75])})
    for critic, bias in zip(agent.target_critics, ([1.0, 5.0], [2.0, 4.0]), strict=True):
        critic.load_state_dict({"0.weight": np.zeros((2, 1)), "0.bias": np.array(bias)})
    batch = Batch(rl.zeros(1, 1), rl.tensor([0]), rl.tensor([3.0]), rl.zeros(1, 1), rl.tensor([0.9]))
    soft = 0.25 * (1.0 - 0.5 * math.log(0.25)) + 0.75 * (4.0 - 0.5 * math.log(0.75))
    assert agent.compute_target(batch).item() == pytest.approx(3.0 + 0.9 * soft, rel=1e-5)


def test_quantile_loss_by_hand():
    """Two quantiles (fractions 1/4 and 3/4) and one target: weight 1/4 or 3/4 by side, half the square for distances within 1."""
    loss = quantile_huber_loss(rl.tensor([[0.0, 3.0]]), rl.tensor([[2.0]]))
    assert loss.item() == pytest.approx(0.25 * 1.5 + 0.25 * 0.5)


def test_squashed_gaussian_density():
    """The log-probability of a squashed action equals the change of variables, computed in float64."""
    from rl_lab.rollout.policies import SquashedGaussian

    mean, log_std = rl.tensor([[0.3, -2.0]]), rl.tensor([[-0.5, 0.4]])
    policy = SquashedGaussian(mean, log_std)
    actions, log_prob = policy.rsample(rl.Generator(1))
    u = np.arctanh(actions.numpy().astype(np.float64))
    std = np.exp(log_std.numpy().astype(np.float64))
    gaussian = -0.5 * ((u - mean.numpy()) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    assert log_prob.item() == pytest.approx((gaussian - np.log(1 - actions.numpy().astype(np.float64) ** 2)).sum(), abs=1e-3)
