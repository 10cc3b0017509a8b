"""Settings that act only at certain steps or change during training: early stops, delays, schedules and priorities."""

import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

import rl_lab as rl
from rl_lab.agents import a2c, ppo, recurrent_ppo
from rl_lab.agents.a2c import A2C, A2CConfig
from rl_lab.agents.crossq import CrossQ, CrossQConfig
from rl_lab.agents.dqn import DQN, DQNConfig
from rl_lab.agents.drqn import DRQN
from rl_lab.agents.ppo import PPO, PPOConfig
from rl_lab.agents.pqn import PQN, PQNConfig
from rl_lab.agents.qrdqn import QRDQN
from rl_lab.agents.recurrent_ppo import RecurrentPPO
from rl_lab.agents.reinforce import REINFORCE, REINFORCEConfig
from rl_lab.agents.sac import SAC, SACConfig
from rl_lab.agents.td3 import TD3, TD3Config
from rl_lab.agents.tqc import TQC
from rl_lab.experiment.environments import make_environments


class Two(gym.Env):
    """Two actions, of which the first alone is allowed; rewards are 0."""

    observation_space = Box(-1, 1, (1,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {"action_mask": np.array([1, 0], np.int8)}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {"action_mask": np.array([1, 0], np.int8)}


gym.register("test/Two-v0", Two)
SMALL = {"network": "mlp:8", "learning_starts": 8, "batch_size": 8, "total_timesteps": 100}


@pytest.mark.parametrize(("target_kl", "epochs"), [(0.0, 5), (1e-9, 1), (1e9, 5)])
def test_the_kl_stop_ends_the_passes(target_kl, epochs):
    config = PPOConfig(num_steps=16, batch_size=16, epochs=5, learning_rate=1e-2, target_kl=target_kl, network="mlp:8")
    agent = PPO.create(config, make_environments("CartPole-v1", 2), 1)
    metrics = agent.step()
    assert metrics["losses/epochs"] == epochs
    # Adam's first steps have the size of the learning rate, so the change of the weights shows the number of updates
    assert agent.optimizer.state_dict()["state"][0]["step"] == 2 * epochs


def test_ppo_anneals_its_step_size_and_its_clip_range():
    config = PPOConfig(
        *(96, "mlp:8"),
        num_steps=16,
        batch_size=32,
        learning_rate=1e-2,
        learning_rate_final=0.1,
        clip_range=0.2,
        clip_range_final=0.5,
    )
    agent = PPO.create(config, make_environments("CartPole-v1", 2), 1)
    for done in (0, 1 / 3, 2 / 3, 1):
        metrics = agent.step()
        assert metrics["charts/learning_rate"] == pytest.approx(1e-2 * (1 - 0.9 * done))
        assert agent.clip_now.item() == pytest.approx(0.2 * (1 - 0.5 * done))


def test_td3_updates_its_actor_and_targets_every_third_time():
    config = TD3Config(policy_delay=3, gradient_steps=1, **SMALL)
    agent = TD3.create(config, make_environments("Pendulum-v1", 1), 1)
    while agent.updates == 0:
        agent.step()

    def state() -> list[np.ndarray]:
        modules = (agent.critics, agent.actor, agent.target_actor, agent.target_critics)
        return [np.concatenate([p.detach().numpy().ravel() for p in module.parameters()]) for module in modules]

    for update in range(2, 8):
        before = state()
        agent.step()
        assert agent.updates == update
        changed = [not np.array_equal(x, y) for x, y in zip(before, state(), strict=True)]
        assert changed == [True, *([update % 3 == 0] * 3)]


def test_crossq_updates_its_actor_every_third_time_and_moves_statistics_only_in_their_losses():
    config = CrossQConfig(policy_delay=3, critic_network="mlp:8", **SMALL)
    agent = CrossQ.create(config, make_environments("Pendulum-v1", 1), 1)
    while agent.updates == 0:
        agent.step()

    def state() -> list[bytes]:
        networks = (agent.critics, agent.actor)
        weights = [b"".join(p.detach().numpy().tobytes() for p in network.parameters()) for network in networks]
        counts = [network.state_dict() for network in networks]
        return [*weights, *[next(x.item() for name, x in c.items() if name.endswith("batches_tracked")) for c in counts]]

    for update in range(2, 8):
        before = state()
        agent.act(np.zeros((3, 3), np.float32), deterministic=True)
        agent.collector.collect(1)
        assert state() == before
        agent.step()
        after = state()
        assert after[0] != before[0]
        assert (after[1] != before[1]) == (update % 3 == 0)
        assert after[2:] == [update, update // 3]


@pytest.mark.parametrize(("env", "unit"), [("CartPole-v1", 0.5 * math.log(2)), ("Pendulum-v1", -1.0)])
def test_the_target_entropy_falls(env, unit):
    agent = SAC.create(SACConfig(target_entropy_final=0.2, **SMALL), make_environments(env, 1), 1)
    assert agent.target_entropy.item() == pytest.approx(unit)
    while agent.timesteps < 50:
        agent.step()
    assert agent.target_entropy.item() == pytest.approx(unit * (1 - 0.8 * 0.5))


@pytest.mark.parametrize("kind", [SAC, TD3, TQC])
def test_actions_are_random_until_learning_starts(kind):
    """An actor that always takes the largest action is used only after ``learning_starts``."""
    agent = kind.create(
        kind.Config(**{**SMALL, "learning_starts": 200, "total_timesteps": 1000}), make_environments("Pendulum-v1", 1), 1
    )
    with rl.no_grad():
        agent.actor[-1].weight.zero_()
        agent.actor[-1].bias.copy_(rl.tensor([9.0] if kind is TD3 else [9.0, -9.0]))
    while agent.timesteps < 200:
        agent.step()
    actions = agent.replay.arrays.actions[:200]
    span = np.ptp(actions)
    assert abs(actions.mean()) < 0.1 * span
    assert actions.std() == pytest.approx(span / math.sqrt(12), rel=0.15)  # uniform
    agent.random_now.fill_(False)
    assert agent.collector.collect(20).actions.min() > 0.75  # near the largest action, 1


def test_prioritised_replay_hears_the_differences_of_the_batch_it_gave():
    config = DQNConfig(prioritized=True, tau=0.5, compile=False, **SMALL)
    agent = DQN.create(config, make_environments("CartPole-v1", 1), 1)
    sample = agent.replay.sample
    given = []
    heard = []

    def sampled(size):
        batch = sample(size)
        given.append((batch.indices, agent.compute_loss_q(batch)[2]))
        return batch

    agent.replay.sample = sampled
    agent.replay.update_priorities = lambda *told: heard.append(told)
    while len(heard) < 3:
        agent.step()
    for (indices, differences), (places, told) in zip(given, heard, strict=True):
        assert places.tolist() == indices.tolist()
        assert told.tolist() == differences.tolist()
        assert np.ptp(told.numpy()) > 0


# --- passes over rollouts --------------------------------------------------------------------------------------------


def by_hand(values, following, gamma, gae_lambda):
    """Advantages (lists over eight steps) for rewards of 0 and episodes that are truncated after five steps."""
    advantages = [0.0] * 8
    last = 0.0
    for t in reversed(range(8)):
        last = gamma * following[t] - values[t] + (0.0 if t % 5 == 4 else gamma * gae_lambda * last)
        advantages[t] = last
    return advantages


@pytest.mark.parametrize("kind", [PPO, RecurrentPPO, A2C])
def test_an_episode_that_is_cut_off_is_worth_its_last_observation_and_ends_the_sum(kind, monkeypatch):
    more = {"batch_size": 16} if kind is PPO else {"batch_envs": 2} if kind is RecurrentPPO else {"shared": False}
    config = kind.Config(num_steps=8, network="mlp:4", gamma=0.9, gae_lambda=0.8, compile=False, **more)
    agent = kind.create(config, make_environments("probe/Clock-v0", 2), 1)
    seen = {}
    if kind is A2C:
        monkeypatch.setattr(a2c, "generalized_advantages", keep(seen, a2c.generalized_advantages))
        agent.update = agent.compute_losses
        agent._update = lambda rollout: [loss.detach() for loss in agent.compute_losses(rollout)]
    else:
        agent._epoch = lambda: None
        module = ppo if kind is PPO else recurrent_ppo
        monkeypatch.setattr(module, "generalized_advantages", keep(seen, module.generalized_advantages))
    agent.step()
    times = np.arange(8) % 5
    values, following = seen["values"][:, 0], seen["next_values"][:, 0]
    np.testing.assert_allclose(values[5:], values[:3], rtol=1e-5)  # all episodes have the same observations
    np.testing.assert_allclose(following[times < 4][:4], values[1:5], rtol=1e-5)
    assert abs(following[4] - values[0]) > 1e-4  # the observation after the last step is 5, not the 0 of the next episode
    np.testing.assert_allclose(seen["advantages"][:, 0], by_hand(values, following, 0.9, 0.8), rtol=1e-4, atol=1e-6)


def test_returns_of_pqn_mix_what_followed_with_its_value():
    """Q(lambda) over eight steps with rewards of 0 and episodes that are truncated after five steps."""
    config = PQNConfig(num_steps=8, batch_size=16, network="mlp:4", gamma=0.9, return_lambda=0.8, compile=False)
    agent = PQN.create(config, make_environments("probe/Clock-v0", 2), 1)
    agent._epoch = lambda: None
    agent.step()
    with rl.no_grad():
        best = agent.q_values(rl.arange(6).float().unsqueeze(1)).amax(1).tolist()
    later = best[3]  # the value after the last step
    for t in reversed(range(8)):
        following = best[t % 5 + 1]
        later = 0.9 * (following if t % 5 == 4 or t == 7 else 0.8 * later + 0.2 * following)
        np.testing.assert_allclose(agent.batch["returns"].reshape(8, 2)[t].tolist(), [later] * 2, rtol=1e-4, atol=1e-6)


def test_pqn_bootstraps_from_allowed_actions():
    """The value of a forbidden action is not in the returns."""
    for forbidden in (-5.0, 5.0):
        config = PQNConfig(num_steps=4, batch_size=8, network="mlp:", compile=False)
        agent = PQN.create(config, make_environments("test/Two-v0", 2), 1)
        with rl.no_grad():
            agent.network[-1].weight.zero_()
            agent.network[-1].bias.copy_(rl.tensor([1.0, forbidden]))
        agent._epoch = lambda: None
        agent.step()
        returns = agent.batch["returns"].reshape(4, 2)[:, 0]
        assert returns[-1].item() == pytest.approx(0.99, abs=1e-6)


def keep(seen, function):
    """Wrap ``function`` so that the values, next values and advantages of its last call are stored in ``seen``."""

    def kept(rewards, values, next_values, *rest):
        made = function(rewards, values, next_values, *rest)
        seen.update(values=values.numpy(), next_values=next_values.numpy(), advantages=made.numpy())
        return made

    return kept


@pytest.mark.parametrize("kind", [PPO, RecurrentPPO, PQN])
def test_every_pass_takes_everything_once_in_a_new_order(kind, monkeypatch):
    more = {"batch_envs": 2} if kind is RecurrentPPO else {"batch_size": 4}
    config = kind.Config(num_steps=4, network="mlp:4", epochs=6, compile=False, **more)
    taken = []
    monkeypatch.setattr(kind, "update", lambda self, index: taken.append(index.tolist()))
    kind.create(config, make_environments("CartPole-v1", 8), 1).step()
    size, step = (8, 2) if kind is RecurrentPPO else (32, 4)
    assert all(len(index) == step for index in taken)
    passes = np.array(taken).reshape(-1, size).tolist()
    assert len(passes) == 6
    assert all(sorted(order) == list(range(size)) for order in passes)
    assert len({tuple(order) for order in passes}) == 6


def test_the_kl_stop_looks_at_each_pass_alone(monkeypatch):
    """Each of five epochs moves the policy by 0.6 of the limit, so none of them stops the update."""
    config = PPOConfig(num_steps=16, batch_size=8, epochs=5, target_kl=0.1, network="mlp:8", compile=False)
    moves = rl.tensor([0, 0, 0, 0.06, 0, 0, 0])
    monkeypatch.setattr(PPO, "update", lambda self, index: self.sums.add_(moves))
    agent = PPO.create(config, make_environments("CartPole-v1", 2), 1)
    assert agent.step()["losses/epochs"] == 5
    moves.copy_(rl.tensor([0, 0, 0, 0.11, 0, 0, 0]))
    assert agent.step()["losses/epochs"] == 1


def test_ratios_begin_at_one_with_moving_statistics():
    """A rollout enters the observation statistics only after its update, so before the update the policy is the one that acted."""
    config = PPOConfig(num_steps=16, batch_size=32, epochs=1, normalize_observations=True, network="mlp:8", compile=False)
    agent = PPO.create(config, make_environments("CartPole-v1", 2), 1)
    for _ in range(3):
        assert agent.step()["losses/approx_kl"] == pytest.approx(0.0, abs=1e-6)


def test_norms_are_those_of_their_losses():
    config = A2CConfig(shared=True, separate_losses=True, value_coefficient=0.0, network="mlp:8")
    metrics = A2C.create(config, make_environments("CartPole-v1", 2), 1).step()
    assert metrics["losses/value_grad_norm"] == 0.0 < metrics["losses/policy_grad_norm"]


def test_reinforce_learns_from_whole_episodes():
    agent = REINFORCE.create(REINFORCEConfig(network="mlp:8"), make_environments("CartPole-v1", 4), 1)
    collect = agent.collector.collect
    begins = []
    for _ in range(3):
        first = []

        def collected(steps, first=first):
            made = collect(steps)
            first.append(made.elapsed[0].tolist())
            return made

        agent.collector.collect = collected
        agent.step()
        begins.append(first[0])
    assert begins == [[0] * 4] * 3


@pytest.mark.parametrize("kind", [A2C, RecurrentPPO, REINFORCE])
def test_the_last_rollout_still_teaches(kind):
    """With a final step size of 0 the last rollout, here the only one, is still learned from."""
    config = kind.Config(total_timesteps=8, learning_rate_final=0.0, network="mlp:8")
    agent = kind.create(config, make_environments("CartPole-v1", 8), 1)
    parts = agent.parts if hasattr(agent, "parts") else agent.actor
    before = [p.detach().numpy().copy() for p in parts.parameters()]
    agent.step()
    assert all((p.detach().numpy() != b).any() for p, b in zip(parts.parameters(), before, strict=True) if p.shape)


# --- replay ----------------------------------------------------------------------------------------------------------


def test_importance_is_undone_fully_at_the_end():
    config = DQNConfig(prioritized=True, importance_exponent=0.4, **SMALL)
    agent = DQN.create(config, make_environments("CartPole-v1", 1), 1)
    for timesteps, expected in ((52, 0.4 + 0.6 * 0.52), (100, 1.0)):
        while agent.timesteps < timesteps:
            agent.step()
        assert float(agent.replay.correction) == pytest.approx(expected)


def test_noise_comes_back_after_a_greedy_action():
    agent = DQN.create(DQNConfig(noisy=True, **SMALL), make_environments("CartPole-v1", 1), 1)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    agent.act(x, deterministic=True)
    assert agent.q_network.training
    with rl.no_grad():
        first, second = (agent.q_network(rl.from_numpy(x)).numpy().copy() for _ in range(2))
    assert (first != second).any()


@pytest.mark.parametrize(("train_frequency", "num_envs"), [(1, 8), (4, 8), (6, 4), (4, 3), (16, 2)])
@pytest.mark.parametrize("kind", [DQN, QRDQN, DRQN, SAC, TD3, TQC, CrossQ])
def test_updates_are_as_many_as_asked_for(kind, train_frequency, num_envs):
    """There is one update per ``train_frequency`` environment steps, for any number of environments."""
    short = {"sequence_length": 1, "burn_in": 0} if kind is DRQN else {}
    env = "Pendulum-v1" if kind in (TD3, TQC, CrossQ) else "CartPole-v1"
    given = {**SMALL, "learning_starts": 0, "train_frequency": train_frequency, "compile": False, **short}
    agent = kind.create(kind.Config(**given), make_environments(env, num_envs), 1)
    made = []
    update = agent._update
    agent._update = lambda *given: made.append(1) or update(*given)
    while agent.timesteps < 96:
        agent.step()
    assert len(made) == agent.timesteps // train_frequency


def test_a_buffer_without_room_is_refused():
    with pytest.raises(ValueError, match="smaller than the 8 environment steps"):
        DQN.create(DQNConfig(**{**SMALL, "buffer_size": 4, "train_frequency": 8}), make_environments("CartPole-v1", 1), 1)
