"""The updates of `tests.agents.updates` in PyTorch, written from the papers, as a reference for the agents.

``python -m tests.agents.torch_updates`` records them (extra ``oracle``); test_torch_updates.py reads the record.
"""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np

from tests.agents.updates import (
    CASES,
    CHOICES,
    ENVS,
    HIGH,
    INPUTS,
    LOW,
    MEMORY,
    QUANTILES,
    STEPS,
    UPDATES,
    Case,
    Noise,
    numbers,
    weights,
)

ANSWERS = Path(__file__).with_suffix(".npz")
GAMMA = 0.99


def main() -> None:
    """Record the losses (updates, ...) and the final parameters of every case."""
    np.savez_compressed(ANSWERS, **{f"{name}/{part}": x for name, c in CASES.items() for part, x in recorded(c).items()})


def recorded(case: Case) -> dict[str, np.ndarray]:
    import torch
    from torch import nn

    F, D = nn.functional, torch.distributions
    o = case.settings
    noise = Noise()
    choices = CHOICES[case.actions]
    outputs = sum(choices) or 2
    lr = o["learning_rate"]

    # --- networks ----------------------------------------------------------------------------------------------------

    def network(inputs: int, outputs: int, activation: Any) -> Any:
        return nn.Sequential(nn.Linear(inputs, 8), activation(), nn.Linear(8, outputs))

    class Head(nn.Module):
        """The log standard deviation as a parameter."""

        def __init__(self) -> None:
            super().__init__()
            if not choices and not o.get("state_dependent_std"):
                self.log_std = nn.Parameter(torch.zeros(2))

    def filled(**parts: Any) -> Any:
        parts_of_agent = nn.ModuleDict(parts)
        with torch.no_grad():
            for name, parameter in parts_of_agent.named_parameters():
                parameter.copy_(torch.from_numpy(weights(name, tuple(parameter.shape))))
        return parts_of_agent

    def tensors(update: int) -> dict[str, Any]:
        made = {name: torch.from_numpy(x) for name, x in numbers(case, update).items()}
        if not case.masks:
            made["masks"] = made["next_masks"] = torch.ones_like(made["masks"])
        return made

    # --- shared by the policy gradients ---------------------------------------------------------------------------------

    def policy(out: Any, head: Any, masks: Any) -> Any:
        if len(choices) == 1:
            return D.Categorical(logits=out.masked_fill(~masks, -1e9))
        if choices:
            return [D.Categorical(logits=part) for part in out.split(choices, 1)]
        if o.get("state_dependent_std"):
            return D.Independent(D.Normal(out[:, :2], (out[:, 2:] + o.get("log_std", 0.0)).exp()), 1)
        return D.Independent(D.Normal(out, head.log_std.exp().expand_as(out)), 1)

    def log_prob(pi: Any, actions: Any) -> Any:
        if isinstance(pi, list):
            return sum(part.log_prob(actions[:, i]) for i, part in enumerate(pi))
        return pi.log_prob(actions)

    def entropy(pi: Any) -> Any:
        return sum(part.entropy() for part in pi) if isinstance(pi, list) else pi.entropy()

    def advantages_of(x: dict[str, Any], values: Any, next_values: Any, gae_lambda: float) -> Any:
        """Generalized advantages, computed backwards through each environment's steps."""
        r, v, following, over, cut = (
            t.reshape(STEPS, ENVS) for t in (x["rewards"], values, next_values, x["terminated"], x["truncated"])
        )
        made, last = torch.zeros(STEPS, ENVS), torch.zeros(ENVS)
        for t in reversed(range(STEPS)):
            delta = r[t] + GAMMA * following[t] * (~over[t]).float() - v[t]
            last = delta + GAMMA * gae_lambda * (~(over[t] | cut[t])).float() * last
            made[t] = last
        return made.flatten()

    def mean(x: Any, w: Any = None) -> Any:
        return x.mean() if w is None else (x * w).sum() / w.sum()

    def standardized(x: Any, w: Any = None) -> Any:
        kept = x if w is None else x[w > 0]
        return (x - kept.mean()) / (kept.std() + 1e-8)

    def norm(loss: Any, parameters: list[Any]) -> Any:
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return torch.cat([g.flatten() for g in gradients if g is not None]).norm()

    def gradient_step(optimizer: Any, loss: Any, parameters: list[Any], limit: float | None = None) -> Any:
        optimizer.zero_grad()
        loss.backward()
        total = nn.utils.clip_grad_norm_(parameters, o.get("max_grad_norm", 10.0) if limit is None else limit)
        optimizer.step()
        return total

    def towards(target: Any, source: Any) -> None:
        with torch.no_grad():
            for a, b in zip(target.parameters(), source.parameters(), strict=True):
                a.mul_(1 - o["tau"]).add_(o["tau"] * b)

    class DuelingNetwork(nn.Module):
        """Wang et al. 2016, equation 9, for each of `QUANTILES` outputs."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(INPUTS, 8), nn.ReLU())
            self.value, self.advantage = nn.Sequential(nn.Linear(8, QUANTILES)), nn.Sequential(nn.Linear(8, 3 * QUANTILES))

        def forward(self, x: Any) -> Any:
            features = self.body(x)
            advantage = self.advantage(features).reshape(-1, 3, QUANTILES)
            return self.value(features)[:, None] + advantage - advantage.mean(1, keepdim=True)

    # --- the agents --------------------------------------------------------------------------------------------------

    def dqn() -> Any:
        parts = filled(q_network=network(INPUTS, 3, nn.ReLU), target_network=network(INPUTS, 3, nn.ReLU))
        q, target = parts["q_network"], parts["target_network"]
        optimizer = torch.optim.Adam(q.parameters(), lr=lr)
        for update in range(UPDATES):
            towards(target, q)
            x = tensors(update)
            with torch.no_grad():
                following = target(x["next_observations"]).masked_fill(~x["next_masks"], -1e9)
                chooser = q(x["next_observations"]).masked_fill(~x["next_masks"], -1e9) if o.get("double", True) else following
                best = following.gather(1, chooser.argmax(1, keepdim=True)).squeeze(1)
                wanted = x["rewards"] + x["discounts"] * best
            taken = q(x["observations"]).gather(1, x["actions"][:, None]).squeeze(1)
            kind = F.mse_loss if o.get("loss") == "mse" else F.huber_loss
            errors = kind(taken, wanted, reduction="none")
            loss = (errors * x["weights"]).mean() if case.weights else errors.mean()
            gradient_step(optimizer, loss, list(q.parameters()))
            yield [loss, taken.mean()]
        yield parts

    def qrdqn() -> Any:
        size = 3 * QUANTILES
        kind = DuelingNetwork if o.get("dueling") else lambda: network(INPUTS, size, nn.ReLU)
        parts = filled(network=kind(), target_network=kind())
        categorical = o.get("distribution") == "categorical"
        if categorical:
            z = torch.linspace(o["value_min"], o["value_max"], QUANTILES)
            step = z[1] - z[0]

        def means(out: Any) -> Any:
            return (out.softmax(-1) * z).sum(-1) if categorical else out.mean(-1)

        optimizer = torch.optim.Adam(parts["network"].parameters(), lr=lr, eps=0.01 / 64)
        fractions = (2 * torch.arange(QUANTILES) + 1) / (2 * QUANTILES)
        for update in range(UPDATES):
            towards(parts["target_network"], parts["network"])
            x = tensors(update)
            rows = torch.arange(len(x["rewards"]))
            with torch.no_grad():
                following = parts["target_network"](x["next_observations"]).reshape(-1, 3, QUANTILES)
                chooser = parts["network" if o.get("double") else "target_network"](x["next_observations"]).reshape(
                    -1, 3, QUANTILES
                )
                best = means(chooser).masked_fill(~x["next_masks"], -1e9).argmax(1)
                chosen = following[rows, best]
            taken = parts["network"](x["observations"]).reshape(-1, 3, QUANTILES)[rows, x["actions"]]
            losses = torch.zeros(len(rows))
            if categorical:  # each shifted value is shared out linearly between its two neighbours
                shifted = (x["rewards"][:, None] + x["discounts"][:, None] * z).clamp(o["value_min"], o["value_max"])
                shares = (1 - (shifted[:, :, None] - z).abs() / step).clamp(min=0)
                projected = (chosen.softmax(1)[:, :, None] * shares).sum(1)
                losses = F.cross_entropy(taken, projected, reduction="none")
            else:
                wanted = x["rewards"][:, None] + x["discounts"][:, None] * chosen
                for i in range(QUANTILES):
                    for j in range(QUANTILES):
                        u = wanted[:, j] - taken[:, i]
                        huber = F.huber_loss(taken[:, i], wanted[:, j], reduction="none")
                        losses = losses + (fractions[i] - (u < 0).float()).abs() * huber / QUANTILES
            loss = (losses * x["weights"]).mean() if case.weights else losses.mean()
            gradient_step(optimizer, loss, list(parts["network"].parameters()))
            yield [loss, means(taken).mean()]
        yield parts

    def drqn() -> Any:
        class Recurrent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.encoder, self.cell = network(INPUTS, MEMORY, nn.Tanh), nn.GRUCell(MEMORY, MEMORY)
                self.head = nn.Linear(MEMORY, 3)

            def after(self, x: Any, memory: Any) -> Any:
                return self.cell(self.encoder(x).tanh(), memory)

        parts = filled(network=Recurrent(), target_network=Recurrent())
        q, slow = parts["network"], parts["target_network"]
        optimizer = torch.optim.Adam(q.parameters(), lr=lr)
        burn_in = o["burn_in"]
        for update in range(UPDATES):
            towards(slow, q)
            x = {
                name: t.reshape(STEPS, ENVS, *t.shape[1:]) if len(t) == STEPS * ENVS else t
                for name, t in tensors(update).items()
            }
            mine = theirs = x["first_memory"]
            ended = x["terminated"] | x["truncated"]
            taken, following = [], []
            for t in range(STEPS):
                if t == burn_in:
                    mine = mine.detach()
                mine, theirs = q.after(x["observations"][t], mine), slow.after(x["observations"][t], theirs)
                if t >= burn_in:
                    taken.append(q.head(mine).gather(1, x["actions"][t][:, None]).squeeze(1))
                    with torch.no_grad():
                        values = slow.head(slow.after(x["next_observations"][t], theirs))
                        chooser = q.head(q.after(x["next_observations"][t], mine)) if o.get("double", True) else values
                        best = chooser.masked_fill(~x["next_masks"][t], -1e9).argmax(1, keepdim=True)
                        following.append(values.gather(1, best).squeeze(1))
                kept = (~ended[t]).float()[:, None]
                mine, theirs = mine * kept, theirs * kept
            errors, later = [], following[-1]
            for t in reversed(range(burn_in, STEPS)):
                value = following[t - burn_in]
                mixed = torch.where(ended[t], value, o["return_lambda"] * later + (1 - o["return_lambda"]) * value)
                later = x["rewards"][t] + GAMMA * (~x["terminated"][t]).float() * mixed
                errors.append(F.huber_loss(taken[t - burn_in], later, reduction="none"))
            loss = torch.cat(errors).mean()
            gradient_step(optimizer, loss, list(q.parameters()))
            yield [loss, torch.cat(taken).mean()]
        yield parts

    def pqn() -> Any:
        if o.get("layer_norm", True):
            q = nn.Sequential(nn.Linear(INPUTS, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))
        else:
            q = network(INPUTS, 3, nn.ReLU)
        parts = filled(network=q)
        optimizer = torch.optim.RAdam(q.parameters(), lr=lr)
        for update in range(UPDATES):
            x = tensors(update)
            with torch.no_grad():
                values = q(x["observations"]).masked_fill(~x["masks"], -1e9).max(1).values
                following = q(x["next_observations"]).masked_fill(~x["next_masks"], -1e9).max(1).values
            # Q(lambda) backwards; the next observations are drawn, so the next value and the value of the next step differ
            made = torch.zeros(STEPS, ENVS)
            r, now, then, over, cut = (
                t.reshape(STEPS, ENVS) for t in (x["rewards"], values, following, x["terminated"], x["truncated"])
            )
            for t in reversed(range(STEPS)):
                mixed = then[t]
                if t < STEPS - 1:
                    mixed = mixed + o["return_lambda"] * (made[t + 1] - now[t + 1]) * (~cut[t]).float()
                made[t] = r[t] + GAMMA * mixed * (~over[t]).float()
            taken = q(x["observations"]).gather(1, x["actions"][:, None]).squeeze(1)
            loss = 0.5 * mean((taken - made.flatten()) ** 2, x["counted"].float() if case.weights else None)
            total = gradient_step(optimizer, loss, list(q.parameters()))
            yield [loss, taken.mean(), total]
        yield parts

    def reinforce() -> Any:
        parts: dict[str, Any] = {"actor": network(INPUTS, outputs, nn.Tanh), "head": Head()}
        if o.get("baseline", True):
            parts["value"] = network(INPUTS, 1, nn.Tanh)
        parts = filled(**parts)
        actor = [*parts["actor"].parameters(), *parts["head"].parameters()]
        optimizer = torch.optim.Adam(actor, lr=lr)
        if "value" in parts:
            value_optimizer = torch.optim.Adam(parts["value"].parameters(), lr=lr)
        for update in range(UPDATES):
            x = tensors(update)
            counted = x["counted"].float()
            values = following = torch.zeros(len(counted))
            if "value" in parts:
                with torch.no_grad():
                    values = parts["value"](x["observations"]).squeeze(1)
                    following = parts["value"](x["next_observations"]).squeeze(1)
            ends = torch.zeros(STEPS, ENVS)
            ends[-1] = 1.0
            ends = torch.maximum(ends.flatten(), x["truncated"].float())
            returns = advantages_of(x, torch.zeros(len(counted)), following * ends, 1.0)
            weight = returns - values
            if o.get("normalize_returns", True):
                centre = mean(weight, counted)
                weight = (weight - centre) / (mean((weight - centre) ** 2, counted).sqrt() + 1e-8)
            pi = policy(parts["actor"](x["observations"]), parts["head"], x["masks"])
            loss = -mean(log_prob(pi, x["actions"]) * weight, counted)
            h = mean(entropy(pi), counted)
            total = gradient_step(optimizer, loss - o["entropy_coefficient"] * h, actor)
            value_loss = value_total = torch.zeros(())
            if "value" in parts:
                for _ in range(o.get("baseline_steps", 4)):
                    value_loss = 0.5 * mean((parts["value"](x["observations"]).squeeze(1) - returns) ** 2, counted)
                    value_total = gradient_step(value_optimizer, value_loss, list(parts["value"].parameters()))
            yield [loss, value_loss, h, total, value_total]
        yield parts

    def a2c() -> Any:
        actor = network(INPUTS, outputs * (2 if o.get("state_dependent_std") else 1), nn.Tanh)
        if o.get("shared", True):
            parts = filled(trunk=actor[:2], actor=actor[2], critic=nn.Linear(8, 1), head=Head())
        else:
            parts = filled(trunk=nn.Identity(), actor=actor, critic=network(INPUTS, 1, nn.Tanh), head=Head())
        parameters = list(parts.parameters())
        if o.get("optimizer") == "adam":
            optimizer: Any = torch.optim.Adam(parameters, lr=lr, eps=1e-5)
        else:
            optimizer = torch.optim.RMSprop(parameters, lr=lr, eps=1e-5)
        for update in range(UPDATES):
            x = tensors(update)
            w = x["counted"].float() if case.weights else None
            features = parts["trunk"](x["observations"])
            values = parts["critic"](features).squeeze(1)
            following = parts["critic"](parts["trunk"](x["next_observations"])).squeeze(1).detach()
            advantages = advantages_of(x, values.detach(), following, o.get("gae_lambda", 1.0))
            returns = advantages + values.detach()
            if o.get("normalize_advantages"):
                advantages = standardized(advantages, w)
            pi = policy(parts["actor"](features), parts["head"], x["masks"])
            policy_loss = -mean(log_prob(pi, x["actions"]) * advantages, w)
            value_loss = 0.5 * mean((values - returns) ** 2, w)
            h = mean(entropy(pi), w)
            norms = [norm(policy_loss - o["entropy_coefficient"] * h, parameters), norm(0.5 * value_loss, parameters)]
            total = gradient_step(optimizer, policy_loss - o["entropy_coefficient"] * h + 0.5 * value_loss, parameters)
            yield [policy_loss, value_loss, h, total, *norms]
        yield parts

    def surrogate(ratio: Any, advantages: Any, w: Any = None) -> Any:
        clip = o.get("clip_range", 0.2)
        return -mean(torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages), w)

    def ppo() -> Any:
        actor = network(INPUTS, outputs * (2 if o.get("state_dependent_std") else 1), nn.Tanh)
        parts = filled(actor=actor, critic=network(INPUTS, 1, nn.Tanh), head=Head())
        of_policy = [*parts["actor"].parameters(), *parts["head"].parameters()]
        parameters = [*of_policy, *parts["critic"].parameters()]
        optimizer = torch.optim.Adam(parameters, lr=lr, eps=1e-5)
        for update in range(UPDATES):
            x = tensors(update)
            w = x["counted"].float() if case.weights else None
            pi = policy(parts["actor"](x["observations"]), parts["head"], x["masks"])
            log_ratio = log_prob(pi, x["actions"]) - x["log_probs"]
            ratio = log_ratio.exp()
            advantages = standardized(x["advantages"], w) if o.get("normalize_advantages", True) else x["advantages"]
            policy_loss = surrogate(ratio, advantages, w)
            values = parts["critic"](x["observations"]).squeeze(1)
            old = x["values"]
            errors = (values - x["returns"]) ** 2
            if "clip_value" in o:
                near = torch.minimum(torch.maximum(values, old - o["clip_value"]), old + o["clip_value"])
                errors = torch.max(errors, (near - x["returns"]) ** 2)
            value_loss = 0.5 * mean(errors, w)
            h = mean(entropy(pi), w)
            kl = mean(ratio - 1 - log_ratio, w)
            clipped = mean(((ratio - 1).abs() > o.get("clip_range", 0.2)).float(), w)
            for_policy, for_value = policy_loss - o["entropy_coefficient"] * h, 0.5 * value_loss
            norms = [norm(for_policy, of_policy), norm(for_value, list(parts["critic"].parameters()))]
            gradient_step(optimizer, for_policy + for_value, parameters)
            yield [policy_loss, value_loss, h, kl, clipped, *norms]
        yield parts

    def recurrent_ppo() -> Any:
        parts = filled(
            encoder=network(INPUTS, MEMORY, nn.Tanh),
            cell=nn.GRUCell(MEMORY, MEMORY),
            actor=nn.Linear(MEMORY, outputs),
            critic=nn.Linear(MEMORY, 1),
            head=Head(),
        )
        parameters = list(parts.parameters())
        optimizer = torch.optim.Adam(parameters, lr=lr, eps=1e-5)
        for update in range(UPDATES):
            x = tensors(update)
            seen = x["observations"].reshape(STEPS, ENVS, INPUTS)
            memory = x["first_memory"]
            memories = []
            for t in range(STEPS):
                kept = (x["elapsed"].reshape(STEPS, ENVS)[t] > 0).float()[:, None]
                memory = parts["cell"](parts["encoder"](seen[t]).tanh(), memory * kept)
                memories.append(memory)
            features = torch.cat(memories)
            pi = policy(parts["actor"](features), parts["head"], x["masks"])
            log_ratio = log_prob(pi, x["actions"]) - x["log_probs"]
            policy_loss = surrogate(log_ratio.exp(), standardized(x["advantages"]))
            value_loss = 0.5 * F.mse_loss(parts["critic"](features).squeeze(1), x["returns"])
            h, kl = mean(entropy(pi)), (log_ratio.exp() - 1 - log_ratio).mean()
            gradient_step(optimizer, policy_loss + 0.5 * value_loss - o["entropy_coefficient"] * h, parameters)
            yield [policy_loss, value_loss, h, kl]
        yield parts

    class StateDependentActor(nn.Module):
        """An actor with generalized state-dependent exploration: the variance of a sum of Gaussian weights times the features."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(INPUTS, 8), nn.ReLU())
            self.mean = nn.Linear(8, 2)
            self.log_std = nn.Parameter(torch.zeros(8, 2))

        def forward(self, x: Any) -> Any:
            features = self.body(x)
            std = torch.sqrt((features**2).mm(torch.exp(self.log_std) ** 2) + 1e-6)
            return torch.cat([F.hardtanh(self.mean(features), -2.0, 2.0), std.log()], 1)

    def drawn(actor: Any, observations: Any) -> tuple[Any, Any]:
        """A squashed Gaussian's sample in [-1, 1] by torch.distributions, and its log density."""
        mu, log_std = actor(observations).chunk(2, 1)
        base = D.Normal(mu, log_std.clamp(-20, 2).exp())
        u = mu + base.scale * torch.from_numpy(noise(tuple(mu.shape)))
        squashed = D.TransformedDistribution(base, [D.TanhTransform(cache_size=1)])
        y = squashed.transforms[0](u)
        return y, squashed.log_prob(y).sum(1)

    def sac() -> Any:
        discrete = bool(choices)
        inputs, values = (INPUTS, 3) if discrete else (INPUTS + 2, 1)
        parts = filled(
            actor=StateDependentActor() if o.get("use_sde") else network(INPUTS, 3 if discrete else 4, nn.ReLU),
            critics=nn.ModuleList([network(inputs, values, nn.ReLU) for _ in range(2)]),
            target_critics=nn.ModuleList([network(inputs, values, nn.ReLU) for _ in range(2)]),
        )
        log_alpha = nn.Parameter(torch.tensor(math.log(o.get("temperature", 1.0))))
        scale = o.get("target_entropy", 0.5 if discrete else 1.0)
        wanted_entropy = scale * math.log(3) if discrete else -2 * scale
        of_actor, of_critics, of_alpha = (
            torch.optim.Adam(p, lr=lr) for p in (parts["actor"].parameters(), parts["critics"].parameters(), [log_alpha])
        )

        def lower(critics: Any, observations: Any, actions: Any = None) -> Any:
            if actions is None:
                return torch.min(critics[0](observations), critics[1](observations))
            pair = torch.cat([observations, actions], 1)
            return torch.min(critics[0](pair), critics[1](pair)).squeeze(1)

        for update in range(UPDATES):
            x = tensors(update)
            alpha = log_alpha.detach().exp()
            with torch.no_grad():
                if discrete:
                    pi = policy(parts["actor"](x["next_observations"]), None, x["next_masks"])
                    soft = lower(parts["target_critics"], x["next_observations"]) - alpha * pi.logits
                    following = (pi.probs * soft).sum(1)
                else:
                    actions, log_pi = drawn(parts["actor"], x["next_observations"])
                    following = lower(parts["target_critics"], x["next_observations"], actions) - alpha * log_pi
                wanted = x["rewards"] + x["discounts"] * following
            if discrete:
                taken = [q(x["observations"]).gather(1, x["actions"][:, None]).squeeze(1) for q in parts["critics"]]
            else:
                taken = [q(torch.cat([x["observations"], x["actions"]], 1)).squeeze(1) for q in parts["critics"]]
            critic_loss = 0.5 * sum(F.mse_loss(q, wanted) for q in taken)
            of_critics.zero_grad()
            critic_loss.backward()
            of_critics.step()

            if discrete:
                pi = policy(parts["actor"](x["observations"]), None, x["masks"])
                actor_loss = (
                    (pi.probs * (alpha * pi.logits - lower(parts["critics"], x["observations"]).detach())).sum(1).mean()
                )
                log_pi = (pi.probs * pi.logits).sum(1)
            else:
                actions, log_pi = drawn(parts["actor"], x["observations"])
                actor_loss = (alpha * log_pi - lower(parts["critics"], x["observations"], actions)).mean()
            of_actor.zero_grad()
            actor_loss.backward()
            of_actor.step()

            of_alpha.zero_grad()
            (-log_alpha * (log_pi.mean().detach() + wanted_entropy)).backward()
            of_alpha.step()
            towards(parts["target_critics"], parts["critics"])
            yield [critic_loss, actor_loss, taken[0].mean(), -log_pi.mean(), log_alpha.exp()]
        yield parts

    def tqc() -> Any:
        count = o.get("critics", 2)
        parts = filled(
            actor=StateDependentActor() if o.get("use_sde") else network(INPUTS, 4, nn.ReLU),
            critics=nn.ModuleList([network(INPUTS + 2, QUANTILES, nn.ReLU) for _ in range(count)]),
            target_critics=nn.ModuleList([network(INPUTS + 2, QUANTILES, nn.ReLU) for _ in range(count)]),
        )
        log_alpha = nn.Parameter(torch.zeros(()))
        of_actor, of_critics, of_alpha = (
            torch.optim.Adam(p, lr=lr) for p in (parts["actor"].parameters(), parts["critics"].parameters(), [log_alpha])
        )
        fractions = (2 * torch.arange(QUANTILES) + 1) / (2 * QUANTILES)

        def quantiles(critics: Any, observations: Any, actions: Any) -> Any:
            return torch.stack([q(torch.cat([observations, actions], 1)) for q in critics], 1)

        for update in range(UPDATES):
            x = tensors(update)
            with torch.no_grad():
                actions, log_pi = drawn(parts["actor"], x["next_observations"])
                pooled = quantiles(parts["target_critics"], x["next_observations"], actions).flatten(1).sort(1).values
                kept = pooled[:, : count * (QUANTILES - o["dropped"])] - log_alpha.exp() * log_pi[:, None]
                wanted = x["rewards"][:, None] + x["discounts"][:, None] * kept
            taken = quantiles(parts["critics"], x["observations"], x["actions"])
            u = wanted[:, None, None, :] - taken[..., None]
            weight = (fractions[:, None] - (u < 0).float()).abs()
            critic_loss = (weight * F.huber_loss(u, torch.zeros_like(u), reduction="none")).mean((0, 2, 3)).sum()
            of_critics.zero_grad()
            critic_loss.backward()
            of_critics.step()

            actions, log_pi = drawn(parts["actor"], x["observations"])
            value = quantiles(parts["critics"], x["observations"], actions).mean((1, 2))
            actor_loss = (log_alpha.detach().exp() * log_pi - value).mean()
            of_actor.zero_grad()
            actor_loss.backward()
            of_actor.step()

            of_alpha.zero_grad()
            (-log_alpha * (log_pi.mean().detach() - 2)).backward()
            of_alpha.step()
            towards(parts["target_critics"], parts["critics"])
            yield [critic_loss, actor_loss, taken.mean(), -log_pi.mean(), log_alpha.exp()]
        yield parts

    class BatchRenorm(nn.Module):
        """Batch renormalisation (Ioffe 2017, algorithm 1) with r_max = 3 and d_max = 5."""

        def __init__(self, size: int) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
            self.mean, self.var, self.batches = torch.zeros(size), torch.ones(size), 0

        def forward(self, x: Any) -> Any:
            known = (self.var + 1e-3).sqrt()
            if not self.training:
                return (x - self.mean) / known * self.weight + self.bias
            mean, var = x.mean(0), x.var(0, unbiased=False)
            std = (var + 1e-3).sqrt()
            normal = (x - mean) / std
            if self.batches >= o["norm_warmup"]:
                r = (std.detach() / known).clamp(1 / 3, 3)
                normal = normal * r + ((mean.detach() - self.mean) / known).clamp(-5, 5)
            self.batches += 1
            self.mean = self.mean + o["norm_momentum"] * (mean.detach() - self.mean)
            self.var = self.var + o["norm_momentum"] * (var.detach() - self.var)
            return normal * self.weight + self.bias

    def crossq() -> Any:
        def renormed(inputs: int, outputs: int) -> Any:
            layers = [nn.Sequential(BatchRenorm(n), nn.Linear(n, m)) for n, m in ((inputs, 8), (8, outputs))]
            return nn.Sequential(layers[0], nn.Tanh(), layers[1]).eval()

        parts = filled(actor=renormed(INPUTS, 4), critics=nn.ModuleList([renormed(INPUTS + 2, 1) for _ in range(2)]))
        log_alpha = nn.Parameter(torch.zeros(()))
        of_actor, of_critics, of_alpha = (
            torch.optim.Adam(p, lr=lr, betas=(0.5, 0.999))
            for p in (parts["actor"].parameters(), parts["critics"].parameters(), [log_alpha])
        )
        parts.eval()
        for update in range(UPDATES):
            x = tensors(update)
            with torch.no_grad():
                actions, log_pi = drawn(parts["actor"], x["next_observations"])
            both = torch.cat([torch.cat([x["observations"], x["next_observations"]]), torch.cat([x["actions"], actions])], 1)
            parts["critics"].train()
            values = torch.cat([q(both) for q in parts["critics"]], 1)
            parts["critics"].eval()
            taken, following = values.chunk(2)
            wanted = x["rewards"] + x["discounts"] * (following.detach().min(1).values - log_alpha.detach().exp() * log_pi)
            critic_loss = 0.5 * ((taken - wanted[:, None]) ** 2).mean(0).sum()
            of_critics.zero_grad()
            critic_loss.backward()
            of_critics.step()
            losses = [critic_loss, taken[:, 0].mean(), *[torch.zeros(())] * 3]
            if update == UPDATES - 1:
                parts["actor"].train()
                actions, log_pi = drawn(parts["actor"], x["observations"])
                parts["actor"].eval()
                pair = torch.cat([x["observations"], actions], 1)
                actor_loss = (
                    log_alpha.detach().exp() * log_pi - torch.min(*[q(pair).squeeze(1) for q in parts["critics"]])
                ).mean()
                of_actor.zero_grad()
                actor_loss.backward()
                of_actor.step()
                of_alpha.zero_grad()
                (-log_alpha * (log_pi.mean().detach() - 2)).backward()
                of_alpha.step()
                losses[2:] = [actor_loss, -log_pi.mean(), log_alpha.exp()]
            yield losses
        yield parts

    def td3() -> Any:
        parts = filled(
            actor=network(INPUTS, 2, nn.ReLU),
            critics=nn.ModuleList([network(INPUTS + 2, 1, nn.ReLU) for _ in range(2)]),
            target_actor=network(INPUTS, 2, nn.ReLU),
            target_critics=nn.ModuleList([network(INPUTS + 2, 1, nn.ReLU) for _ in range(2)]),
        )
        of_actor = torch.optim.Adam(parts["actor"].parameters(), lr=lr)
        of_critics = torch.optim.Adam(parts["critics"].parameters(), lr=lr)
        for update in range(UPDATES):
            x = tensors(update)
            inner = (x["actions"] - torch.from_numpy((LOW + HIGH) / 2)) / torch.from_numpy((HIGH - LOW) / 2)
            with torch.no_grad():
                shaken = (o["target_noise"] * torch.from_numpy(noise(tuple(inner.shape)))).clamp(
                    -o["noise_clip"], o["noise_clip"]
                )
                actions = (parts["target_actor"](x["next_observations"]).tanh() + shaken).clamp(-1, 1)
                pair = torch.cat([x["next_observations"], actions], 1)
                lowest = torch.min(*[q(pair) for q in parts["target_critics"]]).squeeze(1)
                wanted = x["rewards"] + x["discounts"] * lowest
            taken = [q(torch.cat([x["observations"], inner], 1)).squeeze(1) for q in parts["critics"]]
            critic_loss = sum(F.mse_loss(q, wanted) for q in taken)
            of_critics.zero_grad()
            critic_loss.backward()
            of_critics.step()
            losses = [critic_loss, taken[0].mean(), torch.zeros(())]
            if update == UPDATES - 1:
                pair = torch.cat([x["observations"], parts["actor"](x["observations"]).tanh()], 1)
                losses[2] = -parts["critics"][0](pair).mean()
                of_actor.zero_grad()
                losses[2].backward()
                of_actor.step()
                towards(parts["target_actor"], parts["actor"])
                towards(parts["target_critics"], parts["critics"])
            yield losses
        yield parts

    *losses, parts = locals()[case.agent]()
    answer = {"losses": np.array([[value.item() for value in row] for row in losses])}
    return answer | {name: copy.deepcopy(p.detach().numpy()) for name, p in parts.named_parameters()}


if __name__ == "__main__":
    main()
