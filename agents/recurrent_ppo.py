"""Proximal policy optimization with a memory: a recurrent cell between the observations and both heads.

The clipped objective of `rl_lab.agents.ppo`, on whole sequences. The memory at the start of a rollout is stored, and updates compute
the sequence again from this memory (Hausknecht and Stone 2015). The memory is set to zero where an episode ends.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

import rl_lab as rl
from rl_lab.engine.compile import call_times
from rl_lab.experiment import Agent
from rl_lab.experiment.config import Between, setting
from rl_lab.nn import CfCCell, GRUCell, Linear, LTCCell, Module, init
from rl_lab.nn.networks import ACTIVATIONS, layer_sizes, make_network
from rl_lab.nn.utils import clip_grad_norm_
from rl_lab.rollout import Collector, Moment, RewardScale, RunningMoments, generalized_advantages, normalized
from rl_lab.rollout.policies import ActionDistribution, ActionHead, Insight, approximate_kl, clipped_surrogate, outputs_of

CELLS: dict[str, Callable[..., Module]] = {"gru": GRUCell, "cfc": partial(CfCCell, backbone_units=64), "ltc": LTCCell}


@dataclass(frozen=True)
class RecurrentPPOConfig:
    """Hyperparameters of recurrent PPO."""

    total_timesteps: int = setting(300_000, "environment steps to train for", least=1)
    network: str = setting("mlp:64", "layers before the memory: mlp: or cnn: and sizes", check=layer_sizes, shapes=True)
    activation: str = setting("tanh", "activation between the layers", choices=tuple(ACTIVATIONS), shapes=True)
    cell: str = setting(
        "gru", "cell of the memory: gru, or cfc or ltc in continuous time", choices=("gru", "cfc", "ltc"), shapes=True
    )
    memory: int = setting(64, "units of the memory", least=1, shapes=True)
    learning_rate: float = setting(1e-3, "Adam's step size", above=0, search=Between(1e-5, 1e-2, log=True))
    learning_rate_final: float = setting(
        1.0, "final step size as a share of the initial one, reached linearly", least=0, most=1
    )
    num_steps: int = setting(
        64, "steps of each environment in a rollout, the length of a sequence", least=1, search=(16, 32, 64, 128)
    )
    batch_envs: int = setting(4, "sequences in a minibatch; must divide the number of environments", least=1)
    epochs: int = setting(4, "passes over each rollout", least=1, search=(4, 10, 20))
    gamma: float = setting(0.99, "discount factor of the return", least=0, most=1, search=(0.9, 0.95, 0.98, 0.99, 0.995, 0.999))
    gae_lambda: float = setting(
        0.95, "lambda of generalized advantage estimation", least=0, most=1, search=(0.8, 0.9, 0.95, 0.98, 1.0)
    )
    clip_range: float = setting(0.2, "clip range of the probability ratio around 1", above=0, search=(0.1, 0.2, 0.3))
    entropy_coefficient: float = setting(0.0, "weight of the entropy bonus", least=0, search=Between(1e-6, 0.1, log=True))
    value_coefficient: float = setting(0.5, "weight of the value loss", least=0)
    max_grad_norm: float = setting(0.5, "largest norm of the gradient; a larger gradient is scaled down", above=0)
    log_std: float = setting(0.0, "initial log standard deviation of continuous actions")
    normalize_observations: bool = setting(
        False, "normalize observations by their running mean and standard deviation; not bytes, which are scaled", shapes=True
    )
    normalize_rewards: bool = setting(False, "divide rewards by the running standard deviation of the discounted return")
    compile: bool = setting(True, "record acting and updates once, then replay them; results are bitwise the same")


class RecurrentPPO(Agent):
    """PPO with actor and critic on a shared recurrent memory."""

    Config = RecurrentPPOConfig
    learned = ("parts", "moments")
    saved = ("optimizer", "reward_scale", "memory", "action_stream", "shuffle_stream")
    acting_memory = "_acting"

    def build(self) -> None:
        """Networks, memory, optimiser and collector."""
        c = self.config
        if self.num_envs % min(c.batch_envs, self.num_envs):
            raise ValueError(f"batch_envs {c.batch_envs} must divide num_envs {self.num_envs}: change one of them")
        if self.envs.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise ValueError("recurrent_ppo needs vector environments made with autoreset_mode=SAME_STEP; those of an id are")
        self.batch_envs = min(c.batch_envs, self.num_envs)
        network_stream, self.action_stream, self.shuffle_stream, environment_stream = rl.Generator(self.seed).spawn(4)
        self.head = ActionHead(self.space, c.log_std)
        self.encoder = make_network(self.observed, c.network, c.memory, c.activation, orthogonal=True, generator=network_stream)
        self.cell = CELLS[c.cell](c.memory, c.memory, generator=network_stream)
        self.actor = Linear(c.memory, self.head.outputs, generator=network_stream)
        self.critic = Linear(c.memory, 1, generator=network_stream)
        for layer, gain in ((self.actor, 0.01), (self.critic, 1.0)):
            init.orthogonal_(layer.weight, gain, network_stream)
            init.zeros_(layer.bias)
        self.parts = rl.nn.ModuleDict(
            {"encoder": self.encoder, "cell": self.cell, "actor": self.actor, "critic": self.critic, "head": self.head}
        )
        self.parameters = list(self.parts.parameters())
        self.optimizer = rl.optim.Adam(self.parameters, lr=c.learning_rate, eps=1e-5)
        self.moments = RunningMoments(self.shape) if c.normalize_observations and self.observed.is_float else None
        self.reward_scale = RewardScale(self.num_envs, c.gamma) if c.normalize_rewards else None
        self.memory = rl.zeros(self.num_envs, c.memory)
        self.collector = Collector(self.envs, self.sample, environment_stream.as_seed(), c.compile)
        self.batch: dict[str, Any] = {}
        self.sums = rl.zeros(4)
        self.grad_norm = rl.zeros(())  # summed over the updates of a rollout, too
        self._acting = rl.zeros(0, c.memory)
        self._prepare = self.record(self.prepare)
        self._epoch = self.record(self.epoch)
        self._mode = self.record(self.mode)

    # --- acting ------------------------------------------------------------------------------------------------------

    def encode(self, observations: rl.Tensor) -> rl.Tensor:
        """Features (batch, units) of the observations, the input of the memory."""
        return self.encoder(self.moments.normalize(observations) if self.moments is not None else observations).tanh()

    def next_memory(self, observations: rl.Tensor, memory: rl.Tensor) -> rl.Tensor:
        """The memory (batch, units) after the observations."""
        return self.cell(self.encode(observations), memory)

    def policy(self, memory: rl.Tensor, action_mask: rl.Tensor | None = None) -> ActionDistribution:
        """The distribution of actions."""
        return self.head.distribution(self.actor(memory), action_mask)

    def sample(self, moment: Moment) -> dict[str, rl.Tensor]:
        """Actions drawn from the policy, their log-probabilities, the values, and the memory after the observation."""
        kept = self.memory * (moment.elapsed > 0).float().unsqueeze(1)
        memory = self.next_memory(moment.observations, kept)
        self.memory.copy_(memory)
        policy = self.policy(memory, moment.action_mask)
        actions = policy.sample(generator=self.action_stream)
        values = self.critic(memory).squeeze(1)
        return {"actions": actions, "log_probs": policy.log_prob(actions), "values": values, "memory": memory}

    @rl.no_grad()
    def mode(
        self, observations: rl.Tensor, memory: rl.Tensor, action_mask: rl.Tensor | None = None
    ) -> tuple[rl.Tensor, rl.Tensor]:
        """The greedy actions, and the memory after the observations."""
        memory = self.next_memory(observations, memory)
        return self.policy(memory, action_mask).mode, memory

    def explain(
        self, observations: rl.Tensor, action_mask: rl.Tensor | None = None, memory: rl.Tensor | None = None
    ) -> Insight:
        """The outputs of the policy, and the state value, after the observations."""
        given = rl.zeros(len(observations), self.config.memory) if memory is None else memory
        after = self.next_memory(observations, given)
        return Insight(outputs_of(self.policy(after, action_mask)), self.critic(after).squeeze(1))

    def greedy_step(self) -> tuple[Callable[..., tuple[rl.Tensor, ...]], tuple[rl.Tensor, ...]]:
        """The greedy policy as a function of observations and memory, and the memory with which an episode begins."""

        def step(
            observations: rl.Tensor, memory: rl.Tensor, action_mask: rl.Tensor | None = None
        ) -> tuple[rl.Tensor, rl.Tensor]:
            actions, memory = self.mode(observations, memory, action_mask)
            return self.mapping.scaled(actions), memory

        return step, (rl.zeros(1, self.config.memory),)

    def act(self, observations: np.ndarray, deterministic: bool = False, action_mask: np.ndarray | None = None) -> Any:
        """Actions for observations (batch, ...). Row i of each batch belongs to one episode until `begin_episodes`."""
        x = rl.from_numpy(np.ascontiguousarray(observations, self.observation_dtype))
        mask = None if action_mask is None else rl.from_numpy(np.ascontiguousarray(action_mask, bool))
        if len(self._acting) != len(x):
            self._acting = rl.zeros(len(x), self.config.memory)
        if deterministic:
            actions, self._acting = self._mode(x, self._acting, mask)
        else:
            with rl.no_grad():
                self._acting = self.next_memory(x, self._acting)
                actions = self.policy(self._acting, mask).sample(generator=self.action_stream)
        return self.mapping(actions)

    def begin_episodes(self, begins: np.ndarray) -> None:
        """Clear the memory of the rows (batch,) in which the next observation begins an episode."""
        if len(self._acting) == len(begins):
            self._acting = self._acting * rl.from_numpy((~np.asarray(begins, bool)).astype(np.float32)).unsqueeze(1)
        else:
            self._acting = rl.zeros(len(begins), self.config.memory)

    # --- learning ----------------------------------------------------------------------------------------------------

    @rl.no_grad()
    def prepare(self, rollout: dict[str, rl.Tensor]) -> None:
        """Copy the rollout and its advantages into ``self.batch``, which the updates read; tensors are (steps, environments, ...)."""
        values = rollout["values"]
        shape = rollout["rewards"].shape
        following = self.next_memory(rollout["next_observations"].flatten(0, 1), rollout["memory"].flatten(0, 1))
        next_values = self.critic(following).reshape(shape)
        flags = rollout["terminated"], rollout["truncated"]
        advantages = generalized_advantages(
            rollout["rewards"], values, next_values, *flags, self.config.gamma, self.config.gae_lambda
        )
        made = {
            "observations": rollout["observations"],
            "actions": rollout["actions"],
            "log_probs": rollout["log_probs"],
            "advantages": advantages,
            "returns": advantages + values,
            "goes_on": (rollout["elapsed"] > 0).float(),
            "first_memory": rollout["first_memory"].unsqueeze(0),
            "action_masks": rollout.get("action_masks"),
        }
        for name, source in made.items():
            if source is not None:
                self.batch[name].copy_(source)

    def epoch(self) -> None:
        """One pass over the rollout's sequences in a new random order, with a gradient step on each minibatch."""
        for index in rl.randperm(self.num_envs, generator=self.shuffle_stream).split(self.batch_envs):
            self.update(index)

    def compute_loss(self, batch: dict[str, rl.Tensor]) -> list[rl.Tensor]:
        """Policy loss, value loss, entropy and approximate KL divergence of sequences (steps, environments, ...)."""
        c = self.config
        steps, count = batch["log_probs"].shape
        encoded = self.encode(batch["observations"].flatten(0, 1)).reshape(steps, count, c.memory)
        memory = batch["first_memory"][0]
        memories = []
        for t in range(steps):
            memory = self.cell(encoded[t], memory * batch["goes_on"][t].unsqueeze(1))
            memories.append(memory)
        features = rl.cat(memories, 0)
        masks = batch.get("action_masks")
        policy = self.policy(features, None if masks is None else masks.flatten(0, 1))
        log_ratio = policy.log_prob(batch["actions"].flatten(0, 1)) - batch["log_probs"].flatten()
        advantages = batch["advantages"].flatten()
        advantages = normalized(advantages)
        policy_loss = -clipped_surrogate(log_ratio, advantages, c.clip_range).mean()
        value_loss = 0.5 * ((self.critic(features).squeeze(1) - batch["returns"].flatten()) ** 2).mean()
        return [policy_loss, value_loss, policy.entropy().mean(), approximate_kl(log_ratio).mean()]

    def update(self, index: rl.Tensor) -> None:
        """Take one gradient step on the sequences of the environments ``index`` (batch_envs,)."""
        c = self.config
        losses = self.compute_loss({name: x.index_select(1, index) for name, x in self.batch.items()})
        policy_loss, value_loss, entropy, _ = losses
        self.optimizer.zero_grad()
        (policy_loss + c.value_coefficient * value_loss - c.entropy_coefficient * entropy).backward()
        norm = clip_grad_norm_(self.parameters, c.max_grad_norm)
        self.optimizer.step()
        with rl.no_grad():
            self.sums.add_(rl.stack(losses))
            self.grad_norm.add_(norm)

    # --- the loop's body ---------------------------------------------------------------------------------------------

    def step(self) -> dict[str, float]:
        """Collect a rollout, then learn from it for some epochs."""
        c = self.config
        first_memory = self.memory.clone()
        rollout = self.collector.collect(c.num_steps).tensors(self.reward_scale)
        rollout["first_memory"] = first_memory
        self.timesteps += c.num_steps * self.num_envs
        if not self.batch:
            kept = ("observations", "actions", "log_probs", "action_masks")
            self.batch = {name: rollout[name].clone() for name in kept if name in rollout}
            self.batch |= {name: rollout["rewards"].clone() for name in ("advantages", "returns", "goes_on")}
            self.batch["first_memory"] = first_memory.unsqueeze(0).clone()
        progress = min(1.0, (self.timesteps - c.num_steps * self.num_envs) / c.total_timesteps)
        self.optimizer.param_groups[0]["lr"] = c.learning_rate * (1.0 + progress * (c.learning_rate_final - 1.0))
        self._prepare(rollout)
        self.sums.zero_()
        self.grad_norm.zero_()
        minibatches = self.num_envs // self.batch_envs
        call_times(self._epoch, c.epochs)
        if self.moments is not None:
            self.moments.update(rollout["observations"].flatten(0, 1))
        means = (self.sums / (c.epochs * minibatches)).tolist()
        names = ("policy_loss", "value_loss", "entropy", "approx_kl")
        losses = {f"losses/{name}": mean for name, mean in zip(names, means, strict=True)}
        return self.collector.episodes() | losses | {"losses/grad_norm": self.grad_norm.item() / (c.epochs * minibatches)}

    # --- state -------------------------------------------------------------------------------------------------------

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned, also from a run of version 0.1, which saved both streams in one list."""
        if "streams" in state:
            action_stream, shuffle_stream = state["streams"]
            state = {**state, "action_stream": action_stream, "shuffle_stream": shuffle_stream}
        super().load_state_dict(state)
