"""Policy-gradient training of an evolved network on rollouts of its own.

Each rollout serves for several steps on the clipped surrogate objective (Schulman et al. 2017, "Proximal policy optimization
algorithms", equation 7) with generalized advantages (Schulman et al. 2016). Three additions make this work for evolved networks:

- All networks share one critic. It outlives generations and learns from every rollout, so no network starts with an untrained critic.
- A network that evolved to act by its largest output has logits of any magnitude. Actions drawn from their softmax may be almost
  uniform or almost deterministic. Training therefore starts by scaling the logits until the greedy action has the mean probability
  ``Learning.greedy``, and ends by scaling them back. Scaling does not change the greedy actions.
- One step of the optimiser may change the policy of such a network by any amount. If a rollout's steps move the policy further than
  ``Learning.target_kl``, their change of the parameters is halved until the policy is near enough.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv

import rl_lab as rl
from rl_lab.nn import GraphNetwork
from rl_lab.nn.networks import mlp
from rl_lab.nn.utils import clip_grad_norm_
from rl_lab.rollout import OutputMapping, RunningMoments, Stepper, generalized_advantages, normalized
from rl_lab.rollout.policies import ActionDistribution, ActionHead, Factored, approximate_kl, clipped_surrogate
from rl_lab.serialization import generator_state, set_generator_state

CLIP_RANGE = 0.2
MAX_GRAD_NORM = 1.0
CRITIC_SIZES = (64, 64)
MAX_HALVINGS = 20
SHARPEST = 9.0
"""Logarithm of the largest factor on logits."""
STEEPNESS = 4.0
"""Scale from bounded outputs (tanh, sigmoid) to logits. A power of two, so distinct outputs stay distinct."""
_MONOTONE = (
    "identity",
    "sigmoid",
    "steepened_sigmoid",
    "tanh",
    "softplus",
    "clamped",
    "leaky_relu",
    "elu",
    "exp",
    "cube",
    "relu",
)


def policy_of(network: GraphNetwork, actions: OutputMapping) -> tuple[GraphNetwork, float]:
    """A copy of the network to train, and a factor. Its outputs times the factor are logits of choices, or continuous outputs.

    For choices the copy gets linear outputs, if the activation of each of their outputs is monotone: the largest output stays the largest,
    and the outputs do not saturate. If an output feeds other nodes or has another activation, all outputs keep their activation, and the
    factor is ``STEEPNESS``. The outputs of components do not change, and without choices the factor is 1.
    """
    policy = GraphNetwork.from_description(network.describe())
    logits = network.outputs[: actions.actions.num_masked]
    if not logits:
        return policy, 1.0
    activations = {node["name"]: node["activation"] for node in network.describe()["nodes"]}
    fed = {source for source, _ in network.edges}
    if fed & set(network.outputs) or any(activations[name] not in _MONOTONE for name in logits):
        return policy, STEEPNESS
    for name in logits:
        policy.set_activation(name, "identity")
    return policy, 1.0


def actor_of(network: GraphNetwork, actions: OutputMapping) -> GraphNetwork:
    """The network for gradient agents: its outputs are logits (or action values) of discrete actions, or components in [-1, 1].

    It has the same greedy actions as ``network``, ties of saturated outputs included. The linear outputs of `policy_of` would break
    such ties in another way.
    """
    described = network.describe()
    mapping = actions.actions
    arrays = actions.arrays
    centre = mapping.centre
    width = np.where(mapping.radius > 0, mapping.radius, 1)  # bounds may be equal
    if not mapping.size and all(network.activation_of(name) == "identity" for name in network.outputs):
        return GraphNetwork.from_description(described)
    for output, name in enumerate(network.outputs):
        k = output - mapping.num_masked
        # a policy's components are in [-1, 1], but the output mapping returns components in units of the space
        weight = float(arrays.scale[k] / width[k]) if k >= 0 else STEEPNESS
        bias = float((arrays.offset[k] - arrays.first[k] * arrays.scale[k] - centre[k]) / width[k]) if k >= 0 else 0.0
        described["nodes"].append({"name": f"actor{output}", "activation": "identity", "aggregation": "sum", "bias": bias})
        described["edges"].append({"source": name, "target": f"actor{output}", "weight": weight})
    described["outputs"] = [f"actor{k}" for k in range(len(network.outputs))]
    return GraphNetwork.from_description(described)


@rl.no_grad()
def scale_outputs(network: GraphNetwork, scale: float, count: int | None = None) -> None:
    """Multiply the incoming weights and the biases of the first ``count`` output nodes, by default of all, by ``scale``, in place."""
    outputs = set(network.outputs[:count])
    into = rl.tensor([scale if target in outputs else 1.0 for _, target in network.edges])
    network.weight.mul_(into)
    network.bias.mul_(rl.tensor([scale if name in outputs else 1.0 for name in network.nodes]))


@dataclass(frozen=True)
class Learning:
    """Hyperparameters: ``updates`` steps of Adam, spread over ``rollouts`` rollouts of ``steps`` steps of each environment."""

    updates: int
    rollouts: int = 10
    steps: int = 32
    learning_rate: float = 0.1
    critic_learning_rate: float = 5e-3
    gamma: float = 0.99
    gae_lambda: float = 0.95
    target_kl: float = 0.1
    greedy: float = 0.75
    """Mean probability of the greedy action at the start of training, for discrete actions."""
    noise: float = 0.1
    """Standard deviation of the exploration noise on continuous outputs."""

    def shares(self) -> list[int]:
        """Number of updates on each rollout. If there are fewer updates than rollouts, use one rollout per update."""
        rollouts = min(self.rollouts, self.updates)
        return [self.updates * (k + 1) // rollouts - self.updates * k // rollouts for k in range(rollouts)]


class Place(NamedTuple):
    """Start of a rollout: the previous observations (environments, inputs), 0 at the start of an episode, and the network's state."""

    before: np.ndarray
    state: rl.Tensor


class Rollout(NamedTuple):
    """Steps of parallel environments as tensors (steps, environments, ...).

    ``chosen`` holds the actions drawn: indices of choices from 0, or outputs with noise. ``seen`` holds the critic's inputs, and
    ``next_seen`` its inputs for the next observation before a reset. ``state`` is the network's state before the first step.
    ``allowed`` are the action masks.
    """

    observations: rl.Tensor
    chosen: rl.Tensor
    rewards: rl.Tensor
    terminated: rl.Tensor
    truncated: rl.Tensor
    seen: rl.Tensor
    next_seen: rl.Tensor
    state: rl.Tensor
    allowed: rl.Tensor | None = None


class Critic:
    """A state value V(s), divided by the running root mean square of its targets and learned by gradient steps on whole rollouts.

    Its input is an observation and the one before it, because a recurrent network may remember the one before.
    """

    def __init__(self, inputs: int, learning_rate: float, generator: rl.Generator):
        self.network = mlp(2 * inputs, CRITIC_SIZES, 1, "tanh", orthogonal=True, generator=generator)
        self.moments = RunningMoments((2 * inputs,))
        self.targets = RunningMoments(())
        self.optimizer = rl.optim.Adam(self.network.parameters(), lr=learning_rate, eps=1e-5)
        self._update = rl.compile(self.update)

    def scale(self) -> rl.Tensor:
        """The root mean square of the targets so far, ()."""
        return (self.targets.var + self.targets.mean**2 + 1e-8).sqrt()

    def __call__(self, seen: rl.Tensor) -> rl.Tensor:
        """Values (...) of the inputs ``seen`` (..., 2 * inputs)."""
        return self.network(self.moments.normalize(seen)).squeeze(-1) * self.scale()

    def update(self, seen: rl.Tensor, targets: rl.Tensor) -> None:
        """One gradient step towards the targets (steps, environments)."""
        self.optimizer.zero_grad()
        (((self(seen) - targets) / self.scale()) ** 2).mean().backward()
        clip_grad_norm_(list(self.network.parameters()), MAX_GRAD_NORM)
        self.optimizer.step()

    def learn(self, seen: rl.Tensor, targets: rl.Tensor, updates: int) -> None:
        """Update the running statistics with a rollout, then take ``updates`` gradient steps on it."""
        self.moments.update(seen.flatten(0, 1))
        self.targets.update(targets.flatten())
        for _ in range(updates):
            self._update(seen, targets)

    def state_dict(self) -> dict[str, Any]:
        """The network, the running statistics and the optimizer."""
        return {name: getattr(self, name).state_dict() for name in ("network", "moments", "targets", "optimizer")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        for name in ("network", "moments", "targets", "optimizer"):
            getattr(self, name).load_state_dict(state[name])


class PolicyGradient:
    """Trains networks by a policy gradient, with one critic for all of them."""

    def __init__(self, envs: VectorEnv, actions: OutputMapping, learning: Learning, seed: np.random.SeedSequence):
        self.envs = envs
        self.stepper = Stepper(envs)
        self.actions = actions
        self.learning = learning
        self.random = np.random.default_rng(seed)
        self.options = actions.actions.num_masked
        self.head = ActionHead(actions.space) if self.options else None
        """Makes the distributions of choices; None without choices."""
        inputs = math.prod(envs.single_observation_space.shape or ())
        self.critic = Critic(inputs, learning.critic_learning_rate, rl.Generator(int(self.random.integers(2**31))))

    def train(self, network: GraphNetwork) -> tuple[GraphNetwork, int]:
        """A copy of the network with trained weights and biases, and the number of environment steps used."""
        c = self.learning
        policy, factor = policy_of(network, self.actions)
        place = self._begin(policy)
        sharpness = 1.0
        rollouts = len(c.shares())
        if self.head is not None:
            # a greedy rollout gives the logits in the states that the network visits
            rollout, place = self._act(policy, math.inf, place)
            logits = self.outputs(policy, rollout).detach()[:, : self.options]
            sharpness = self.sharpness(factor * logits, rollout.allowed)
            rollouts += 1
        if factor == 1.0:
            scale_outputs(policy, sharpness, self.options or None)
        life = Life(self, policy, factor if factor == 1.0 else factor * sharpness)
        for updates in c.shares():
            rollout, place = self._act(policy, life.factor, place)
            advantages, targets = self.estimate(rollout)
            life.learn(rollout, advantages, updates)
            self.critic.learn(rollout.seen, targets, updates)
        if factor == 1.0:
            scale_outputs(policy, 1.0 / sharpness, self.options or None)
        trained = GraphNetwork.from_description(network.describe())
        with rl.no_grad():
            trained.weight.copy_(policy.weight)
            trained.bias.copy_(policy.bias)
        return trained, rollouts * c.steps * self.envs.num_envs

    def _begin(self, policy: GraphNetwork) -> Place:
        """Begin new episodes in all environments."""
        n = self.stepper.num_envs
        observations = self.stepper.reset(self.random.integers(2**31, size=n).tolist())
        return Place(np.zeros_like(observations).reshape(n, -1), rl.zeros(n, len(policy.nodes)))

    @rl.no_grad()
    def _act(self, policy: GraphNetwork, factor: float, place: Place) -> tuple[Rollout, Place]:
        """A rollout, and the place where the next one begins. Discrete actions are drawn, or greedy if ``factor`` is infinite."""
        stepper = self.stepper
        mapping = self.actions.actions
        before, state = place
        n = stepper.num_envs
        steps: list[Any] = []
        masks: list[Any] = []
        for _ in range(self.learning.steps):
            x = stepper.observations.reshape(n, -1).copy()
            if policy.recurrent:
                out, state = policy(rl.tensor(x), state)
            else:
                out = policy(rl.tensor(x))
            outputs = out.numpy()
            allowed = stepper.action_mask
            chosen = outputs.copy()
            if self.options:
                # Gumbel trick: the argmax of logits plus Gumbel noise is a sample from their softmax
                gumbel = self.random.gumbel(size=(n, self.options)) / factor
                chosen[:, : self.options] += gumbel.astype(np.float32)
            if mapping.size:
                noise = self.random.standard_normal((n, mapping.size), np.float32)
                chosen[:, self.options :] += np.float32(self.learning.noise) * noise
            taken = self.actions(chosen, allowed)
            if self.options:
                # (n, choices + components): the index of each choice, then the output of each component with its noise
                choices = mapping.to_policy(taken)
                count = len(mapping.choices)
                chosen = np.concatenate([choices[:, :count], chosen[:, self.options :]], 1) if mapping.size else choices
            masks.append(allowed)
            step = stepper.step(taken)
            ended = step.ended
            following = step.observations.reshape(n, -1)
            seen = np.concatenate([x, before], 1)
            next_seen = np.concatenate([following, x], 1)
            steps.append((x, chosen, step.rewards.astype(np.float32), step.terminated, step.truncated, seen, next_seen))
            before = np.where(ended[:, None], np.float32(0), x)
            if policy.recurrent:
                state = state * rl.tensor(~ended).float().unsqueeze(1)
        stacked: list[Any] = [rl.tensor(np.stack(parts)) for parts in zip(*steps, strict=True)]
        masked = None if stepper.action_mask is None else rl.tensor(np.stack(masks))
        return Rollout._make([*stacked, place.state, masked]), Place(before, state)

    def sharpness(self, logits: rl.Tensor, allowed: rl.Tensor | None = None) -> float:
        """The factor on the logits with which greedy actions have the mean probability ``Learning.greedy``, by bisection."""
        assert self.head is not None
        mask = None if allowed is None else allowed.flatten(0, 1)
        low = -SHARPEST
        high = SHARPEST
        for _ in range(30):
            middle = (low + high) / 2
            policy = self.choices(logits * math.exp(middle), mask)
            if float(policy.log_prob(policy.mode).exp().mean()) < self.learning.greedy:
                low = middle
            else:
                high = middle
        return math.exp(high)

    @rl.no_grad()
    def estimate(self, rollout: Rollout) -> tuple[rl.Tensor, rl.Tensor]:
        """Advantages with mean 0 and standard deviation 1, and the critic's targets; both (steps, environments)."""
        r = rollout
        values = self.critic(rollout.seen)
        advantages = generalized_advantages(
            r.rewards,
            values,
            self.critic(r.next_seen),
            r.terminated,
            r.truncated,
            self.learning.gamma,
            self.learning.gae_lambda,
        )
        return normalized(advantages), advantages + values

    def outputs(self, policy: GraphNetwork, rollout: Rollout) -> rl.Tensor:
        """The network's outputs at the steps of a rollout, (steps * environments, outputs)."""
        if not policy.recurrent:
            return policy(rollout.observations.flatten(0, 1))
        state = rollout.state
        parts = []
        going = (~(rollout.terminated | rollout.truncated)).float().unsqueeze(2)
        for t in range(len(going)):
            out, state = policy(rollout.observations[t], state)
            state = state * going[t]
            parts.append(out)
        return rl.stack(parts).flatten(0, 1)

    def log_probs(self, policy: GraphNetwork, factor: float, rollout: Rollout) -> rl.Tensor:
        """Log-probabilities of the chosen actions, up to a constant; (steps * environments,)."""
        outputs = self.outputs(policy, rollout)
        chosen = rollout.chosen.flatten(0, 1)
        if self.head is None:
            return self.noise_log_probs(chosen, outputs)
        mask = None if rollout.allowed is None else rollout.allowed.flatten(0, 1)
        if not self.actions.actions.size:
            return self.choices(factor * outputs, mask).log_prob(chosen)
        count = len(self.actions.actions.choices)
        choices = self.choices(factor * outputs[:, : self.options], mask).log_prob(chosen[:, :count].long())
        return choices + self.noise_log_probs(chosen[:, count:], outputs[:, self.options :])

    def choices(self, logits: rl.Tensor, mask: rl.Tensor | None) -> ActionDistribution:
        """The distribution of the choices."""
        assert self.head is not None
        return self.head.distribution(logits, mask) if self.head.single else Factored(self.head.parts(logits, mask))

    def noise_log_probs(self, chosen: rl.Tensor, outputs: rl.Tensor) -> rl.Tensor:
        """Log-probabilities of outputs with noise, up to a constant; (batch,)."""
        return -0.5 * (((chosen - outputs) / self.learning.noise) ** 2).sum(1)

    # --- state -------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The critic and the random generator."""
        return {"critic": self.critic.state_dict(), "random": generator_state(self.random)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.critic.load_state_dict(state["critic"])
        set_generator_state(self.random, state["random"])


class Life:
    """The training of one network. Its update is recorded once and replayed."""

    def __init__(self, owner: PolicyGradient, policy: GraphNetwork, factor: float):
        self.owner = owner
        self.policy = policy
        self.factor = factor
        self.learning = owner.learning
        self.parameters: list[Any] = [policy.weight, policy.bias]
        self.start = [p.detach().clone() for p in self.parameters]
        self.optimizer = rl.optim.Adam(self.parameters, lr=self.learning.learning_rate, eps=1e-5)
        self._update = rl.compile(self.update)
        self._retreat = rl.compile(self.retreat)

    def learn(self, rollout: Rollout, advantages: rl.Tensor, updates: int) -> None:
        """Take ``updates`` steps on a rollout, or fewer if the policy moves further than ``target_kl`` from the one that acted.

        Even one step can move it too far. Then the change of the parameters is halved until the policy is near enough.
        """
        limit = self.learning.target_kl
        with rl.no_grad():
            before = self.owner.log_probs(self.policy, self.factor, rollout)
            for start, parameter in zip(self.start, self.parameters, strict=True):
                start.copy_(parameter)
        for _ in range(updates):
            if self._update(rollout, advantages, before).item() > limit:
                break
        for halvings in range(MAX_HALVINGS):
            if self._retreat(rollout, before, halvings > 0).item() <= limit:
                break

    def update(self, rollout: Rollout, advantages: rl.Tensor, before: rl.Tensor) -> rl.Tensor:
        """Take one step on the clipped surrogate objective. ``before`` holds the actions' log-probabilities when they were drawn.

        Returns the mean approximate KL divergence from the policy that acted, before this step.
        """
        log_ratio = self.owner.log_probs(self.policy, self.factor, rollout) - before
        self.optimizer.zero_grad()
        (-clipped_surrogate(log_ratio, advantages.flatten(), CLIP_RANGE).mean()).backward()
        clip_grad_norm_(self.parameters, MAX_GRAD_NORM)
        self.optimizer.step()
        return approximate_kl(log_ratio).mean()

    @rl.no_grad()
    def retreat(self, rollout: Rollout, before: rl.Tensor, halve: bool) -> rl.Tensor:
        """Halve the change since the start of `learn` if ``halve``; return the mean KL divergence from the policy that acted."""
        if halve:
            for start, parameter in zip(self.start, self.parameters, strict=True):
                parameter.copy_((start + parameter) / 2)
        return approximate_kl(self.owner.log_probs(self.policy, self.factor, rollout) - before).mean()
