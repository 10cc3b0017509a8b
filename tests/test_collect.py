"""The collector: stored steps are consistent, and equal for native and for Gymnasium's environments."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import rl_lab as rl
from rl_lab.engine.errors import EnvironmentFault
from rl_lab.experiment.environments import choose_setup, make_environments
from rl_lab.nn.networks import mlp
from rl_lab.rollout import Collector, Moment, Rollout

TAXI = max(name for name in gym.registry if name.startswith("Taxi-v"))
MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP]


def random_policy(actions: int = 2, seed: int = 0):
    stream = rl.Generator(seed)

    def policy(moment: Moment) -> dict[str, rl.Tensor]:
        return {"actions": rl.randint(0, actions, (len(moment.observations),), generator=stream)}

    return policy


def collect(mode: AutoresetMode, steps: int, env: str = "CartPole-v1", num_envs: int = 3) -> tuple[Rollout, Collector]:
    envs = gym.make_vec(env, num_envs=num_envs, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode})
    collector = Collector(envs, random_policy(), seed=7)
    return collector.collect(steps), collector


# --- stored transitions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_transitions_join_up(mode):
    """By CartPole's physics a transition's positions differ by velocity times 0.02 s, also in the last step of an episode."""
    rollout, collector = collect(mode, 200)
    batch = rollout.transitions()
    moved = batch.observations[:, 0] + 0.02 * batch.observations[:, 1]
    assert batch.next_observations[:, 0] == pytest.approx(moved, abs=1e-5)
    assert batch.terminated.sum() > 10
    assert rollout.valid.all() == (mode == AutoresetMode.SAME_STEP)
    statistics = collector.episodes()
    assert statistics["charts/episodic_return"] == statistics["charts/episodic_length"]
    assert collector.episodes() == {}


@pytest.mark.parametrize("mode", MODES)
def test_episode_statistics_count_every_step_once(mode):
    rollout, collector = collect(mode, 300, num_envs=1)
    ends = np.flatnonzero(rollout.transitions().terminated)
    lengths = np.diff([-1, *ends])
    assert collector.episodes()["charts/episodic_length"] == pytest.approx(np.mean(lengths))


def test_elapsed_counts_from_the_reset_and_goes_on_between_rollouts():
    for _ in range(2):
        rollout, collector = collect(AutoresetMode.SAME_STEP, 100)
        expected = np.zeros(3, np.int64)
        for _ in range(2):
            for t in range(100):
                assert (rollout.elapsed[t] == expected).all()
                expected = np.where(rollout.terminated[t] | rollout.truncated[t], 0, expected + 1)
            rollout = collector.collect(100)


def test_truncation_is_not_termination():
    rollout, _ = collect(AutoresetMode.SAME_STEP, 30, "rl_lab/ProbeEndless-v0")
    assert not rollout.terminated.any()
    assert rollout.truncated.sum() == 3 * 6


# --- native and Gymnasium --------------------------------------------------------------------------------------------

TWINS = {"CartPole-v1": 2, "Acrobot-v1": 3, "MountainCar-v0": 3, "Pendulum-v1": 0, "MountainCarContinuous-v0": 0}


def network_policy(inputs: int, actions: int, seed: int):
    """An epsilon-greedy or Gaussian policy with a network; together they draw every kind of random number that policies need."""
    weights, stream = rl.Generator(seed), rl.Generator(seed + 1)
    network = mlp(inputs, (16,), actions or 1, generator=weights)

    def policy(moment: Moment) -> dict[str, rl.Tensor]:
        out = network(moment.observations)
        count = len(moment.observations)
        if not actions:
            return {"actions": out + rl.randn(count, 1, generator=stream), "values": out.squeeze(1)}
        random = rl.randint(0, actions, (count,), generator=stream)
        chosen = rl.rand(count, generator=stream) < 0.4
        return {"actions": rl.where(chosen, random, out.argmax(1)), "values": out, "begins": moment.elapsed == 0}

    return policy


@pytest.mark.parametrize("env", TWINS)
@pytest.mark.parametrize(("frame_stack", "time_aware"), [(1, False), (3, True)])
def test_native_and_gymnasium_give_the_same_arrays(env, frame_stack, time_aware):
    """Recorded and eager policies give the same arrays as well, for rollouts of several lengths."""
    collected = []
    for backend in ("native", "gymnasium"):
        for compile in (True, False):
            setup = choose_setup(env, backend, "sync", frame_stack, time_aware)
            envs = make_environments(setup, 5)
            shape = envs.single_observation_space.shape
            inputs = int(np.prod(shape))
            inner = network_policy(inputs, TWINS[env], 3)

            def policy(moment: Moment, inner=inner) -> dict[str, rl.Tensor]:
                return inner(moment._replace(observations=moment.observations.flatten(1)))

            collector = Collector(envs, policy, 11, compile)
            parts = []
            for steps in (150, 1, 1, 40):
                rollout = collector.collect(steps)
                parts.append([np.copy(array) for array in (*rollout[:8], *rollout.extras.values())])
            collected.append((parts, collector.episodes()))
            envs.close()
    first = collected[0]
    assert first[0][0][3].any() or env != "CartPole-v1"
    for other in collected[1:]:
        for mine, yours in zip(first[0], other[0], strict=True):
            for a, b in zip(mine, yours, strict=True):
                assert a.dtype == b.dtype
                # Acrobot's first observation may differ in the last bit: see envs/acrobot.py
                assert np.array_equal(a, b) if env != "Acrobot-v1" else np.allclose(a, b, atol=1e-6)
        assert first[1] == other[1]


def test_a_policy_that_changes_is_followed():
    """The recorded policy uses the present values of parameters, also after a parameter was replaced."""
    envs = make_environments("CartPole-v1", 4)
    layer = rl.nn.Linear(4, 2)
    rl.nn.init.zeros_(layer.weight)

    def policy(moment: Moment) -> dict[str, rl.Tensor]:
        return {"actions": layer(moment.observations).argmax(1)}

    collector = Collector(envs, policy, 0)
    for expected in (0, 1, 0):
        with rl.no_grad():
            layer.bias.copy_(rl.tensor([1.0, 0.0] if expected == 0 else [0.0, 1.0]))
        assert (collector.collect(5).actions == expected).all()
    layer.bias = rl.nn.Parameter(rl.tensor([0.0, 1.0]))
    assert (collector.collect(5).actions == 1).all()


def test_a_rollout_costs_one_call(monkeypatch):
    """One native call for many steps: only the first step of all is taken from Python."""
    steps: list[int] = []
    step = Collector._step
    monkeypatch.setattr(Collector, "_step", lambda self, storage, t: steps.append(t) or step(self, storage, t))
    collector = Collector(make_environments("CartPole-v1", 4), random_policy(), 0)
    for _ in range(3):
        collector.collect(50)
    assert steps == [0]


def test_an_environment_of_another_package():
    """LunarLander, if Box2D is installed."""
    pytest.importorskip("Box2D")
    envs = make_environments(choose_setup("LunarLander-v3", "gymnasium"), 2)
    rollout = Collector(envs, random_policy(4), 3).collect(200)
    assert rollout.terminated.sum() > 1
    assert np.isfinite(rollout.observations).all()
    envs.close()


@pytest.mark.parametrize("env", ["FrozenLake-v1", "Blackjack-v1", TAXI])
def test_observations_that_are_no_boxes_are_flattened(env):
    setup = choose_setup(env)
    envs = make_environments(setup, 3)
    seen = []

    def policy(moment: Moment) -> dict[str, rl.Tensor]:
        seen.append(moment)
        return {"actions": rl.zeros(len(moment.observations), dtype=rl.int64)}

    rollout = Collector(envs, policy, 0, compile=False).collect(20)
    assert rollout.observations.dtype == np.float32
    assert set(np.unique(rollout.observations)) <= {0.0, 1.0}  # one-hot
    envs.close()


def test_masks_come_with_the_observations():
    """Taxi's mask marks the actions that change the state; each stored mask belongs to the observation in the same row."""
    envs = make_environments(TAXI, 2)
    stream = rl.Generator(4)

    def policy(moment: Moment) -> dict[str, rl.Tensor]:
        scores = rl.rand(len(moment.observations), 6, generator=stream).masked_fill(~moment.action_mask, -1.0)
        return {"actions": scores.argmax(1)}

    rollout = Collector(envs, policy, 0).collect(300)
    taxi = gym.make(TAXI).unwrapped
    states = rollout.observations.argmax(2)
    for t in range(300):
        for i in range(2):
            assert (rollout.action_masks[t, i] == taxi.action_mask(int(states[t, i]))).all()
            following = int(rollout.next_observations[t, i].argmax())
            assert (rollout.next_action_masks[t, i] == taxi.action_mask(following)).all()
            assert rollout.action_masks[t, i, rollout.actions[t, i]]
    envs.close()


def test_environments_in_other_processes():
    setup = choose_setup("CartPole-v1", "gymnasium", "async")
    envs, twin = make_environments(setup, 3), make_environments("CartPole-v1", 3)
    try:
        a, b = (Collector(e, random_policy(), 5).collect(60) for e in (envs, twin))
        for mine, yours in zip(a[:8], b[:8], strict=True):
            assert np.array_equal(mine, yours)
    finally:
        envs.close()


# --- faults ----------------------------------------------------------------------------------------------------------


def test_a_reward_that_is_no_number_names_the_environment():
    with pytest.raises(
        EnvironmentFault, match=r"environment 0 of probe/ReturnsNan-v0 \(seed 7\) returned a reward of nan at step 5"
    ):
        collect(AutoresetMode.SAME_STEP, 10, "probe/ReturnsNan-v0")


class Raises(gym.Env):
    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 3:
            raise KeyError("lost")
        return np.zeros(1, np.float32), 0.0, False, False, {}


def test_an_environment_that_raises_is_named():
    gym.register("probe/Raises-v0", entry_point=Raises)
    collector = Collector(make_environments("probe/Raises-v0", 2), random_policy(), 20)
    with pytest.raises(
        EnvironmentFault, match=r"environment 0 of probe/Raises-v0 \(seed 20\) failed at step 3 .*KeyError: 'lost'"
    ):
        collector.collect(10)


def test_a_native_environment_names_itself():
    envs = make_environments("Pendulum-v1", 3)
    calls = 0

    def policy(moment: Moment) -> dict[str, rl.Tensor]:
        nonlocal calls
        calls += 1
        return {"actions": moment.observations[:, :1] * float("nan")}

    collector = Collector(envs, policy, 20)
    with pytest.raises(
        EnvironmentFault, match=r"environment 0 of Pendulum \(seed 20\) was given the action .* at step 1 of its episode"
    ):
        collector.collect(10)


def test_environments_that_do_not_reset_themselves_are_refused():
    envs = gym.make_vec("rl_lab/CartPole-v1", num_envs=2, autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ValueError, match="autoreset is disabled"):
        Collector(envs, random_policy(), 0)
