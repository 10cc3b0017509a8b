"""PPO of Stable-Baselines3 on rl_lab's environments: python -m benchmarks.stable_baselines [--steps 20000]. Needs the extra ``bench``.

It trains once on its own vector environments over ``gym.make``, and once on a native vector environment from ``gym.make_vec``. The
adapter below implements the interface that Stable-Baselines3 needs.
"""

import argparse
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

import rl_lab.envs  # noqa: F401  registers the environments


class NativeVecEnv(VecEnv):
    """Adapter from a Gymnasium vector environment with same-step autoreset to the interface of Stable-Baselines3."""

    def __init__(self, name: str, num_envs: int):
        self.native: Any = gym.make_vec(name, num_envs=num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
        self.render_mode = None
        super().__init__(num_envs, self.native.single_observation_space, self.native.single_action_space)

    def reset(self) -> np.ndarray:
        return self.native.reset(seed=self._seeds[0])[0]

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> Any:
        observations, rewards, terminated, truncated, info = self.native.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(terminated | truncated):
            infos[i] = {
                "terminal_observation": info["final_obs"][i],
                "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
                "episode": {key: info["episode"][key][i] for key in "rlt"},
            }
        return observations, rewards.astype(np.float32), terminated | truncated, infos

    def close(self) -> None:
        self.native.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return list(np.array(self.native.get_attr(attr_name), object)[self._get_indices(indices)])

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        self.native.set_attr(attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return list(self.native.call(method_name, *args, **kwargs))

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a second thread does not speed up small networks
    print("| environment | made by | return before | after | seconds |\n|---|---|---|---|---|")
    for name in ("rl_lab/CartPole-v1", "rl_lab/Catch-v0"):
        for way in ("gym.make", "gym.make_vec"):
            vector = make_vec_env(name, 8, seed=1) if way == "gym.make" else NativeVecEnv(name, 8)
            vector.seed(1)
            policy = "MlpPolicy"
            model = PPO(policy, vector, n_steps=128, batch_size=256, seed=1, device="cpu", learning_rate=1e-3)
            judge = make_vec_env(name, 4, seed=100)
            before, _ = evaluate_policy(model, judge, 20)
            begin = time.perf_counter()
            model.learn(arguments.steps)
            seconds = time.perf_counter() - begin
            after, _ = evaluate_policy(model, judge, 20)
            print(f"| {name} | {way} | {before:.1f} | {after:.1f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
