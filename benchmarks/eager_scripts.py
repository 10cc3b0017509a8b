"""Training loops from the literature as people write them for PyTorch, for either library (``lib`` is rl_lab or torch): no compile."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.workloads import perceptron

Update = Callable[[], Any]


def _data(lib: Any, seed: int, *shapes: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [lib.tensor(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]


def c51(lib: Any, batch: int = 128, atoms: int = 101, actions: int = 2) -> Update:
    """An update of C51 on CartPole as in CleanRL, whose projection loops over the batch (Bellemare et al. 2017)."""
    online, target = (perceptron(lib, (4, 120, 84, actions * atoms)) for _ in range(2))
    optimizer = lib.optim.Adam(online.parameters(), lr=2.5e-4, eps=0.01 / batch)
    observations, following = _data(lib, 0, (batch, 4), (batch, 4))
    chosen = lib.tensor(np.random.default_rng(1).integers(0, actions, batch))
    rewards = lib.ones(batch, 1)
    dones = lib.zeros(batch, 1)
    low, high = -100.0, 100.0
    support = lib.linspace(low, high, atoms)

    def distribution(network: Any, x: Any, action: Any = None) -> tuple[Any, Any]:
        logits = network(x)
        pmfs = lib.softmax(logits.view(len(x), actions, atoms), dim=2)
        values = (pmfs * support).sum(2)
        if action is None:
            action = lib.argmax(values, 1)
        return action, pmfs[lib.arange(len(x)), action]

    def update() -> Any:
        with lib.no_grad():
            _, next_pmfs = distribution(target, following)
            next_atoms = rewards + 0.99 * support * (1 - dones)
            delta = support[1] - support[0]
            tz = next_atoms.clamp(low, high)
            b = (tz - low) / delta
            lower = b.floor().clamp(0, atoms - 1)
            upper = b.ceil().clamp(0, atoms - 1)
            d_lower = (upper + (lower == upper).float() - b) * next_pmfs
            d_upper = (b - lower) * next_pmfs
            target_pmfs = lib.zeros_like(next_pmfs)
            for i in range(target_pmfs.size(0)):
                target_pmfs[i].index_add_(0, lower[i].long(), d_lower[i])
                target_pmfs[i].index_add_(0, upper[i].long(), d_upper[i])
        _, old_pmfs = distribution(online, observations, chosen)
        loss = (-(target_pmfs * old_pmfs.clamp(min=1e-5, max=1 - 1e-5).log()).sum(-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return update


def rainbow(lib: Any, batch: int = 32, atoms: int = 51, actions: int = 4) -> Update:
    """An update of Rainbow on vectors: noisy layers, duelling heads, double Q, distributions, weights (Hessel et al. 2018)."""
    nn = lib.nn
    functional = nn.functional

    class Noisy(nn.Module):
        def __init__(self, inputs: int, outputs: int):
            super().__init__()
            self.weight_mu = nn.Parameter(lib.randn(outputs, inputs) * inputs**-0.5)
            self.weight_sigma = nn.Parameter(lib.full((outputs, inputs), 0.5 * inputs**-0.5))
            self.bias_mu = nn.Parameter(lib.zeros(outputs))
            self.bias_sigma = nn.Parameter(lib.full((outputs,), 0.5 * outputs**-0.5))
            self.register_buffer("weight_epsilon", lib.zeros(outputs, inputs))
            self.register_buffer("bias_epsilon", lib.zeros(outputs))
            self.reset_noise()

        def reset_noise(self) -> None:
            noise = [lib.randn(size) for size in reversed(self.weight_mu.shape)]
            inputs, outputs = (x.sign().mul_(x.abs().sqrt_()) for x in noise)
            self.weight_epsilon.copy_(outputs.outer(inputs))
            self.bias_epsilon.copy_(outputs)

        def forward(self, x: Any) -> Any:
            weight = self.weight_mu + self.weight_sigma * self.weight_epsilon
            return functional.linear(x, weight, self.bias_mu + self.bias_sigma * self.bias_epsilon)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 128), nn.ReLU())
            self.hidden_value = Noisy(128, 128)
            self.value = Noisy(128, atoms)
            self.hidden_advantage = Noisy(128, 128)
            self.advantage = Noisy(128, actions * atoms)

        def forward(self, x: Any, log: bool = False) -> Any:
            x = self.body(x)
            value = self.value(functional.relu(self.hidden_value(x))).view(-1, 1, atoms)
            advantage = self.advantage(functional.relu(self.hidden_advantage(x))).view(-1, actions, atoms)
            q = value + advantage - advantage.mean(1, keepdim=True)
            return functional.log_softmax(q, dim=2) if log else functional.softmax(q, dim=2)

        def reset_noise(self) -> None:
            for name, module in self.named_children():
                if name != "body":
                    module.reset_noise()

    online, target = Network(), Network()
    for parameter in target.parameters():
        parameter.requires_grad = False
    optimizer = lib.optim.Adam(online.parameters(), lr=6.25e-5, eps=1.5e-4)
    states, following = _data(lib, 0, (batch, 8), (batch, 8))
    chosen = lib.tensor(np.random.default_rng(1).integers(0, actions, batch))
    returns, nonterminals, weights = lib.ones(batch), lib.ones(batch, 1), lib.ones(batch)
    low, high = -10.0, 10.0
    delta = (high - low) / (atoms - 1)
    support = lib.linspace(low, high, atoms)

    def update() -> Any:
        online.reset_noise()
        log_probabilities = online(states, log=True)[range(batch), chosen]
        with lib.no_grad():
            best = (support.expand_as(online(following)) * online(following)).sum(2).argmax(1)
            target.reset_noise()
            probabilities = target(following)[range(batch), best]
            tz = returns.unsqueeze(1) + nonterminals * 0.99**3 * support.unsqueeze(0)
            b = (tz.clamp(min=low, max=high) - low) / delta
            lower, upper = b.floor().to(lib.int64), b.ceil().to(lib.int64)
            lower[(upper > 0) * (lower == upper)] -= 1
            upper[(lower < (atoms - 1)) * (lower == upper)] += 1
            m = states.new_zeros(batch, atoms)
            offset = lib.linspace(0, (batch - 1) * atoms, batch).unsqueeze(1).expand(batch, atoms).to(chosen)
            m.view(-1).index_add_(0, (lower + offset).view(-1), (probabilities * (upper.float() - b)).view(-1))
            m.view(-1).index_add_(0, (upper + offset).view(-1), (probabilities * (b - lower.float())).view(-1))
        loss = -lib.sum(m * log_probabilities, 1)
        online.zero_grad()
        (weights * loss).mean().backward()
        nn.utils.clip_grad_norm_(online.parameters(), 10.0)
        optimizer.step()
        return loss

    return update


def maml(lib: Any, tasks: int = 5, shots: int = 10) -> Update:
    """A meta-update of MAML for the regression of sinusoids, with second derivatives (Finn et al. 2017)."""
    functional = lib.nn.functional
    sizes = (1, 40, 40, 1)
    weights = []
    for a, b in zip(sizes, sizes[1:], strict=False):
        weights += [(lib.randn(b, a) * a**-0.5).requires_grad_(), lib.zeros(b, requires_grad=True)]
    optimizer = lib.optim.Adam(weights, lr=1e-3)
    rng = np.random.default_rng(0)

    def forward(x: Any, w: list[Any]) -> Any:
        x = functional.relu(functional.linear(x, w[0], w[1]))
        x = functional.relu(functional.linear(x, w[2], w[3]))
        return functional.linear(x, w[4], w[5])

    def sample() -> Any:
        amplitude, phase = rng.uniform(0.1, 5.0), rng.uniform(0, np.pi)

        def points() -> Any:
            x = rng.uniform(-5, 5, (shots, 1)).astype(np.float32)
            return lib.from_numpy(x), lib.from_numpy((amplitude * np.sin(x + phase)).astype(np.float32))

        return points(), points()

    def update() -> Any:
        total = 0.0
        for _ in range(tasks):
            (x, y), (x_query, y_query) = sample()
            loss = functional.mse_loss(forward(x, weights), y)
            gradients = lib.autograd.grad(loss, weights, create_graph=True)
            adapted = [w - 0.01 * g for w, g in zip(weights, gradients, strict=True)]
            total = total + functional.mse_loss(forward(x_query, adapted), y_query)
        total = total / tasks
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        return total

    return update


def ltc(lib: Any, batch: int = 32, length: int = 8, inputs: int = 4, units: int = 16, unfolds: int = 6) -> Update:
    """A step of training a liquid time-constant network with fused solver steps (Hasani et al. 2021)."""
    nn = lib.nn

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()

            def draw(low: float, high: float, *shape: int) -> Any:
                return nn.Parameter(lib.rand(*shape) * (high - low) + low)

            self.gleak, self.vleak, self.cm = draw(0.001, 1, units), draw(-0.2, 0.2, units), draw(0.4, 0.6, units)
            self.sigma, self.mu, self.w = draw(3, 8, units, units), draw(0.3, 0.8, units, units), draw(0.001, 1, units, units)
            self.erev = draw(-1, 1, units, units)
            self.sensory_sigma, self.sensory_mu = draw(3, 8, inputs, units), draw(0.3, 0.8, inputs, units)
            self.sensory_w, self.sensory_erev = draw(0.001, 1, inputs, units), draw(-1, 1, inputs, units)

        @staticmethod
        def gate(v: Any, mu: Any, sigma: Any) -> Any:
            return lib.sigmoid(sigma * (lib.unsqueeze(v, -1) - mu))

        def forward(self, x: Any, state: Any) -> Any:
            positive = nn.functional.softplus
            sensory = positive(self.sensory_w) * self.gate(x, self.sensory_mu, self.sensory_sigma)
            sensory_numerator = lib.sum(sensory * self.sensory_erev, dim=1)
            sensory_denominator = lib.sum(sensory, dim=1)
            cm = positive(self.cm) / (1.0 / unfolds)
            w = positive(self.w)
            gleak = positive(self.gleak)
            for _ in range(unfolds):
                activation = w * self.gate(state, self.mu, self.sigma)
                numerator = lib.sum(activation * self.erev, dim=1) + sensory_numerator
                denominator = lib.sum(activation, dim=1) + sensory_denominator
                state = (cm * state + gleak * self.vleak + numerator) / (cm + gleak + denominator + 1e-8)
            return state

    cell, readout = Cell(), nn.Linear(units, 1)
    parameters = [*cell.parameters(), *readout.parameters()]
    optimizer = lib.optim.Adam(parameters, lr=1e-2)
    x, y = _data(lib, 0, (batch, length, inputs), (batch, length, 1))

    def update() -> Any:
        state = lib.zeros(batch, units)
        outputs = []
        for t in range(length):
            state = cell(x[:, t], state)
            outputs.append(readout(state))
        loss = nn.functional.mse_loss(lib.stack(outputs, dim=1), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return update


def cfc(lib: Any, batch: int = 32, length: int = 16, inputs: int = 4, units: int = 32) -> Update:
    """A step of training a closed-form continuous-time network (Hasani et al. 2022)."""
    nn = lib.nn

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Linear(inputs + units, 64), nn.SiLU())
            self.ff1, self.ff2 = nn.Linear(64, units), nn.Linear(64, units)
            self.time_a, self.time_b = nn.Linear(64, units), nn.Linear(64, units)
            self.tanh, self.sigmoid = nn.Tanh(), nn.Sigmoid()

        def forward(self, x: Any, state: Any, spans: Any) -> Any:
            x = self.backbone(lib.cat([x, state], 1))
            ff1, ff2 = self.tanh(self.ff1(x)), self.tanh(self.ff2(x))
            share = self.sigmoid(self.time_a(x) * spans + self.time_b(x))
            return ff1 * (1.0 - share) + share * ff2

    cell, readout = Cell(), nn.Linear(units, 1)
    optimizer = lib.optim.Adam([*cell.parameters(), *readout.parameters()], lr=1e-3)
    x, y = _data(lib, 0, (batch, length, inputs), (batch, length, 1))
    spans = lib.rand(batch, length)

    def update() -> Any:
        state = lib.zeros(batch, units)
        outputs = []
        for t in range(length):
            state = cell(x[:, t], state, spans[:, t].unsqueeze(-1))
            outputs.append(readout(state))
        loss = nn.functional.mse_loss(lib.stack(outputs, dim=1), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return update


SCRIPTS: dict[str, Callable[[Any], Update]] = {
    "C51, batch 128": c51,
    "Rainbow, batch 32": rainbow,
    "MAML, 5 tasks": maml,
    "LTC, 8 steps": ltc,
    "CfC, 16 steps": cfc,
}
