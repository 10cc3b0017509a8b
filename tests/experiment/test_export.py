"""Exported policies act as the agents do: as an ONNX model in onnxruntime, as a NumPy module, and as C compiled without warnings."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Tuple

import rl_lab as rl
from rl_lab import export, nn
from rl_lab.agents.neat.agent import NEAT
from rl_lab.agents.qrdqn import RAINBOW
from rl_lab.experiment import Agent
from rl_lab.experiment.agent import find_agent
from rl_lab.experiment.export.building import policy_graph
from rl_lab.experiment.export.c_file import write_c
from rl_lab.experiment.export.checking import Examples, differing, distance, examples_of, observations_like, run
from rl_lab.experiment.export.graph import FLOAT, Output
from rl_lab.experiment.export.numpy_module import write_numpy
from rl_lab.experiment.export.onnx_model import write_onnx
from rl_lab.experiment.export.recording import record
from rl_lab.experiment.faults import Fault
from rl_lab.nn.graph.kernels import ACTIVATIONS
from rl_lab.rollout.actions import choices_of
from rl_lab.testing import SPACES, Probe
from tests.agents.test_readme_example import ACTOR_CRITIC

COUNT = 1000
FORMATS = ("numpy", "onnx", "c")
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def compiled(source: str, examples: Examples, folder: Path):
    """As `run`, for C: the file is compiled strictly, and its function is called for each observation."""
    if COMPILER is None:
        pytest.skip("needs a C compiler")
    file = folder / "policy.c"
    file.write_text(source)
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-fPIC", "-shared"]
    subprocess.run([COMPILER, *strict, str(file), "-lm", "-o", str(folder / "policy.so")], check=True)
    step = ctypes.CDLL(str(folder / "policy.so")).policy_step
    size = {name: int(n) for name, n in re.findall(r"#define POLICY_(\w+) (\d+)", source)}
    kind = np.int64 if "int64_t *action" in source else np.float32

    def outputs(observations, memory=(), mask=None):
        actions = np.zeros((len(observations), size["ACTION"]), kind)
        scores = np.zeros((len(observations), size["OPTIONS"]), np.float32)
        kept = np.concatenate([np.zeros((len(observations), 0), np.float32), *[m.reshape(len(m), -1) for m in memory]], 1)
        for i, observation in enumerate(np.ascontiguousarray(observations)):
            given = [observation.ctypes.data_as(ctypes.c_void_p)]
            given += [kept[i].ctypes.data_as(ctypes.c_void_p)] * ("float *memory" in source)
            own = None if mask is None else np.ascontiguousarray(mask[i]).astype(np.uint8)
            given += [None if own is None else own.ctypes.data_as(ctypes.c_void_p)] * ("*mask" in source)
            given += [actions[i].ctypes.data_as(ctypes.c_void_p)]
            given += [scores[i].ctypes.data_as(ctypes.c_void_p)] * ("float *scores" in source)
            step(*given)
        after, at = [], 0
        for part in memory:
            after.append(kept[:, at : at + part[0].size].reshape(part.shape))
            at += part[0].size
        return actions, scores if size["OPTIONS"] else None, tuple(after)

    return outputs


def function_of(graph, examples: Examples, kind: str, folder: Path):
    if kind == "c":
        return compiled(write_c(graph, examples), examples, folder)
    return run(write_onnx(graph) if kind == "onnx" else write_numpy(graph).encode(), kind)


def masks_for(agent: Agent, count: int) -> np.ndarray:
    """Random masks that allow an option of each choice."""
    random = np.random.default_rng(3)
    rows = []
    for options in agent.mapping.choices:
        row = random.random((count, options)) < 0.5
        row[np.arange(count), random.integers(options, size=count)] = True
        rows.append(row)
    return np.concatenate(rows, 1)


def assert_same(agent: Agent, folder: Path, kinds=FORMATS, tolerance: float = 1e-6, count: int = COUNT) -> None:
    """The exports of an agent give its actions, scores aside, on ``count`` observations; with masks where it has them."""
    graph = policy_graph(agent)
    mask = masks_for(agent, count) if graph.input("action_mask") else None
    examples = examples_of(agent, graph, count, action_mask=mask)
    x = examples.observations
    wanted = examples.actions
    radius = agent.mapping.radius[np.abs(agent.mapping.high) < 1e18]
    within = tolerance * max([1.0, *radius])  # components of the policy are in [-1, 1]
    if agent.acting_memory is None and not isinstance(agent.space, (Tuple, Dict)):
        wanted = np.asarray(agent.predict(x, action_mask=mask))
    given = None if mask is None else rl.tensor(mask)
    memory = rl.tensor(examples.memory[0]) if agent.acting_memory == "_acting" else None
    with rl.no_grad():
        insight = agent.explain(rl.tensor(x), given, memory)
    for kind in kinds:
        function = function_of(graph, examples, kind, folder)
        actions, scores, after = function(x, examples.memory, mask)
        actions = np.asarray(actions).reshape(wanted.shape)
        assert not len(differing(actions, scores, examples._replace(actions=wanted), within)), kind
        if kind == "numpy":
            module: dict = {"__name__": "policy"}
            exec(write_numpy(graph), module)
            acted = module["predict"](x, None, mask)
            acted = acted if agent.acting_memory is None else acted[0]
            assert isinstance(agent.space, (Tuple, Dict)) or all(action in agent.space for action in acted)
        if scores is not None and insight is not None and not isinstance(agent, NEAT):
            expected = insight.outputs[:, : agent.mapping.num_masked].numpy()
            allowed = np.ones(expected.shape, bool) if mask is None else mask
            assert distance(np.asarray(scores)[allowed], expected[allowed]) <= tolerance, kind
        assert len(np.unique(wanted.reshape(count, -1), axis=0)) > 1, "a policy that always does the same proves nothing"
        for found, expected in zip(after, examples.after, strict=True):
            assert distance(found, expected) <= tolerance


AGENTS = {
    "dqn": {},
    "dqn with two heads": {"dueling": True, "normalize_observations": True, "noisy": True, "activation": "silu"},
    "qrdqn": {},
    "qrdqn that is Rainbow": {**RAINBOW, "value_min": -1.0, "value_max": 1.0},  # sums of 51 small numbers
    "pqn": {"normalize_observations": True},
    "drqn": {"normalize_observations": True},
    "pqn on rl_lab/Catch-v0": {"network": "cnn:8x3s2,8:32"},
    "ppo": {"normalize_observations": True},
    "a2c": {},
    "reinforce": {},
    "recurrent_ppo": {"normalize_observations": True},
    "neat": {"population": 20},
    "bc": {"dataset": "random:300"},
    "iql on Pendulum-v1": {"dataset": "random:300"},
    "ars": {},
    "es on Pendulum-v1": {"pairs": 4, "normalize_observations": True},
    **({"cmaes": {}} if find_spec("cma") else {}),
    "ppo on Pendulum-v1": {"normalize_observations": True, "activation": "sigmoid"},
    "sac on Pendulum-v1": {"normalize_observations": True},
    "sac": {},
    "td3 on Pendulum-v1": {},
    "tqc on Pendulum-v1": {"use_sde": True},
    "crossq on Pendulum-v1": {},
    "recurrent_ppo on Pendulum-v1": {},
    "neat on rl_lab/DoublePole-v0": {"population": 20, "recurrent": True},
    "dqn on rl_lab/Catch-v0": {"network": "cnn:8x3s2,8:32"},
    "ppo on rl_lab/Bricks-v0": {"network": "cnn:8x4s2:32", "shared": True},
    "dqn on rl_lab/CartPoleMasked-v0": {},
    "recurrent_ppo on rl_lab/CartPoleMasked-v0": {},
    "neat on rl_lab/CartPoleMasked-v0": {"population": 20},
}


@pytest.mark.parametrize("name", AGENTS)
def test_agents(name, tmp_path):
    short, _, env = name.partition(" on ")
    agent = find_agent(short.split()[0])(env or "CartPole-v1", preset=False, **AGENTS[name])
    for _ in range(1 if "cnn" in str(AGENTS[name]) else 3):
        agent.advance()
    # evolved networks are steep: an error of rounding of their sums grows up to tenfold
    assert_same(agent, tmp_path, tolerance=1e-5 if short == "neat" else 1e-6)


MASKED = {
    "dqn": {}, "dqn with two heads": {"dueling": True}, "qrdqn": {}, "ppo": {}, "a2c": {}, "sac": {}, "recurrent_ppo": {},
    "neat": {"population": 10},
}  # fmt: skip


@pytest.mark.parametrize("name", MASKED)
def test_agents_with_masks(name, tmp_path):
    """The exported policy chooses among the allowed options."""
    agent = find_agent(name.split()[0])(lambda: Probe(SPACES["Discrete"], "info"), preset=False, **MASKED[name])
    agent.advance()
    assert policy_graph(agent).input("action_mask")
    assert_same(agent, tmp_path, ("numpy", "onnx"), 1e-5 if name == "neat" else 1e-6, 100)


def test_agent_of_an_outsider(tmp_path):
    agent = ACTOR_CRITIC("CartPole-v1")
    agent.advance()
    assert_same(agent, tmp_path)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("masked", ["", "info"])
def test_action_spaces(name, masked, tmp_path):
    if masked and not choices_of(SPACES[name]):
        pytest.skip("has no options to mask")
    agent = find_agent("reinforce")(lambda: Probe(SPACES[name], masked), network="mlp:8")
    if name == "Box of many integers":
        with pytest.raises(Fault, match="scaled in float64"):
            policy_graph(agent)
        return
    assert_same(agent, tmp_path, ("numpy", "onnx"), 1e-3 if "float16" in name else 1e-6, 100)


@pytest.mark.parametrize("space", [Box(-0.1, 0.1, (2,), np.float64), Box(-0.1, 0.3, (2, 1), np.float16), SPACES["Box"]])
def test_actions_at_the_bounds_are_in_the_space(space):
    """Bounds of float64 are rounded on the way, some of them to numbers outside of the space."""
    agent = find_agent("reinforce")(lambda: Probe(space), network="mlp:8", preset=False)
    for part in agent.learned:
        for parameter in getattr(agent, part).parameters() if getattr(agent, part) is not None else ():
            parameter.data.mul_(1e4)
    module: dict = {"__name__": "policy"}
    exec(write_numpy(policy_graph(agent)), module)
    rows = observations_like(agent, 50)
    actions = module["predict"](rows)
    assert all(action in space for action in actions)
    assert (module["predict"](rows[0]) == actions[0]).all()
    assert (actions == agent.predict(rows)).all()
    assert {*np.unique(actions)} <= {*np.unique([space.low, space.high])}


def test_only_options_of_equal_scores_are_exchangeable():
    """Options that are alike do not excuse a mistake among others, nor does one choice excuse another."""
    scores = np.array([[5.0, 5.0, 9.0, 1.0, 1.0]], np.float32)
    given = Examples(np.zeros((1, 1)), (), np.array([[12, 7]]), (), (3, 2), (10, 7))
    for actions, wrong in (([12, 8], False), ([10, 7], True), ([11, 8], True), ([13, 7], True), ([12, 9], True)):
        assert bool(len(differing(np.array([actions]), scores, given, 1e-4))) == wrong, actions
    assert len(differing(np.array([[12, 8]]), None, given, 1e-4))
    hybrid = Examples(np.zeros((1, 1)), (), np.array([[1.0, 0.5]], np.float32), (), (2,), (0,))
    even = np.array([[1.0, 1.0]], np.float32)
    assert not len(differing(np.array([[0.0, 0.5]], np.float32), even, hybrid, 1e-4))
    assert len(differing(np.array([[0.0, 0.6]], np.float32), even, hybrid, 1e-4))


# --- layers ----------------------------------------------------------------------------------------------------------


class Computes(nn.Module):
    """Elementwise functions."""

    def forward(self, x):
        positive, small = x.abs() + 0.1, x.tanh() * 0.9
        parts = [
            x.sin(),
            x.cos(),
            positive.log(),
            positive.log2(),
            positive.log10(),
            positive.log1p(),
            small.expm1(),
            small.tan(),
        ]
        parts += [
            small.asin(),
            small.acos(),
            x.atan(),
            small.sinh(),
            small.cosh(),
            x.asinh(),
            (1 + positive).acosh(),
            small.atanh(),
        ]
        parts += [
            x.erf(),
            positive**1.5,
            x.floor(),
            x.ceil(),
            x.round(),
            x.trunc(),
            positive.sqrt(),
            positive.rsqrt(),
            x.sign(),
            x**2,
        ]
        return rl.cat(parts, 1)


class Attends(nn.Module):
    """Attention over four tokens of six numbers."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        tokens = x.view(len(x), 4, 6)
        return self.attention(tokens, tokens, tokens)[0].flatten(1)


class Remembers(nn.Module):
    """An LSTM and a GRU over four steps of six numbers."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.gru = nn.GRU(5, 4, batch_first=True)

    def forward(self, x):
        return self.gru(self.lstm(x.view(len(x), 4, 6))[0])[0].flatten(1)


class Chooses(nn.Module):
    """Rows of tables, chosen by the input; statistics of the others."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, 3)

    def forward(self, x):
        parts = x.view(len(x), 4, 6)
        chosen = parts.argmax(1)
        rows = self.table(chosen).flatten(1)
        largest = parts.gather(1, chosen.unsqueeze(1)).squeeze(1)
        hot = rl.nn.functional.one_hot(chosen, 4).float().flatten(1)
        return rl.cat([rows, largest, hot, parts.std(1), parts.logsumexp(1), parts.prod(1), (parts > 1).any(1).float()], 1)


PICTURE = (2, 8, 6)
LAYERS = {
    "convolutions": (
        PICTURE,
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 2, groups=2, dilation=2, bias=False), nn.Flatten()
        ),
    ),
    "pools": (
        PICTURE,
        lambda: nn.Sequential(
            nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, 1, 1, count_include_pad=False), nn.AvgPool2d(2, 2, 1), nn.Flatten()
        ),
    ),
    "norms": (
        PICTURE,
        lambda: nn.Sequential(nn.BatchNorm2d(2), nn.GroupNorm(2, 2), nn.LayerNorm((8, 6)), nn.Flatten(), nn.Softmax(1)).eval(),
    ),
    "functions": ((6,), Computes),
    "attention": ((24,), Attends),
    "recurrent": ((24,), Remembers),
    "choices": ((24,), Chooses),
    "activations": (
        (24,),
        lambda: nn.Sequential(
            nn.ELU(), nn.GELU(), nn.Softplus(), nn.LeakyReLU(), nn.Hardtanh(), nn.Hardswish(), nn.Mish(), nn.Softsign()
        ),
    ),
}


def graph_of(module, shape):
    """The graph of a module as a policy whose action is its result."""
    with rl.no_grad():
        graph, (result,) = record("the module", lambda x: (module(x),), {"observation": rl.zeros(1, *shape)})
        size = module(rl.zeros(1, *shape)).numel()
    graph.outputs = [Output(result, "action", (size,), FLOAT)]
    return graph.without_dead_nodes()


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, tmp_path):
    shape, make = LAYERS[name]
    rl.manual_seed(0)
    module = make()
    x = np.random.default_rng(0).standard_normal((200, *shape)).astype(np.float32)
    with rl.no_grad():
        wanted = module(rl.tensor(x)).numpy()
    graph = graph_of(module, shape)
    for kind in FORMATS:
        actions, _, _ = function_of(graph, Examples(x[:2], (), wanted[:2], ()), kind, tmp_path)(x)
        assert distance(actions, wanted) <= 2e-6, kind


@pytest.mark.parametrize("recurrent", [False, True])
def test_evolved_networks(recurrent, tmp_path):
    """Every activation and both aggregations, with edges that skip and, in a recurrent network, lead back."""
    rl.manual_seed(0)
    network = nn.GraphNetwork(3, 2, recurrent=recurrent)
    random = np.random.default_rng(1)
    for i, activation in enumerate(ACTIVATIONS):
        name = network.add_node(f"n{i}", activation, "product" if i % 4 == 3 else "sum", random.normal())
        network.add_edge(f"input{i % 3}", name, random.normal())
        network.add_edge(name, f"output{i % 2}", 0.1 * random.normal())
        if i > 1:
            network.add_edge(f"n{i - 2}", name, 0.3 * random.normal())
        if recurrent and i > 0:
            network.add_edge(name, f"n{i - 1}", 0.1 * random.normal())
    state = [rl.zeros(1, len(network.nodes))] if recurrent else []
    inputs = {"observation": rl.zeros(1, 3), **{f"memory{i}": part for i, part in enumerate(state)}}
    with rl.no_grad():
        graph, results = record("it", lambda *given: network(*given) if recurrent else (network(*given),), inputs)
    graph.outputs = [Output(results[0], "action", (2,), FLOAT)]
    graph.outputs += [Output(part, "memory0", (len(network.nodes),), FLOAT) for part in results[1:]]
    graph.memory = [part.numpy() for part in state]
    x = random.standard_normal((200, 3)).astype(np.float32)
    memory = tuple(random.uniform(-1, 1, (200, len(network.nodes))).astype(np.float32) for _ in state)
    with rl.no_grad():
        found = network(rl.tensor(x), *map(rl.tensor, memory))
    wanted, *after = [part.numpy() for part in (found if recurrent else (found,))]
    for kind in FORMATS:
        function = function_of(graph, Examples(x[:2], tuple(m[:2] for m in memory), wanted[:2], ()), kind, tmp_path)
        actions, _, kept = function(x, memory)
        assert distance(actions, wanted) <= 2e-6, kind
        assert all(distance(a, b) <= 2e-6 for a, b in zip(kept, after, strict=True))


@pytest.mark.parametrize("aggregation", ["sum", "product"])
def test_nodes_of_many_edges(aggregation, tmp_path):
    """As many as evolved networks have that see pictures."""
    random = np.random.default_rng(1)
    described = nn.GraphNetwork(1200, 1).describe()
    described["nodes"].append({"name": "n", "activation": "tanh", "aggregation": aggregation, "bias": 0.1})
    weights = 0.03 * random.standard_normal(1200) if aggregation == "sum" else np.ones(1200)
    described["edges"] = [{"source": f"input{i}", "target": "n", "weight": float(w)} for i, w in enumerate(weights)]
    described["edges"].append({"source": "n", "target": "output0", "weight": 1.0})
    network = nn.GraphNetwork.from_description(described)
    x = random.standard_normal((20, 1200)).astype(np.float32)
    x = x if aggregation == "sum" else np.exp(0.01 * x)
    with rl.no_grad():
        graph, results = record("it", lambda x: (network(x),), {"observation": rl.zeros(1, 1200)})
        wanted = network(rl.tensor(x)).numpy()
    graph.outputs = [Output(results[0], "action", (1,), FLOAT)]
    for kind in FORMATS:
        actions, _, _ = function_of(graph, Examples(x[:2], (), wanted[:2], ()), kind, tmp_path)(x)
        assert distance(actions, wanted) <= 2e-6, kind


# --- refusals --------------------------------------------------------------------------------------------------------

ODD = {
    "cumulative_sum": lambda x: x.cumsum(1),
    "changes memory that outlives the call": lambda x: x + rl.randn(1, 3),
    "reads a tensor's value": lambda x: x * float(x.sum()),
    "random numbers from a generator": lambda x: x * __import__("random").random(),
}


@pytest.mark.parametrize("message", ODD)
def test_a_policy_without_translation_is_refused(message):
    with pytest.raises(Fault, match=f"cannot be exported: .*{message}"):
        record("it", lambda x: (ODD[message](x),), {"observation": rl.zeros(1, 3)})


def test_an_export_that_would_differ_is_not_written(tmp_path):
    class Decides(type(ACTOR_CRITIC("CartPole-v1"))):
        def greedy(self, observations, action_mask=None):
            actions = super().greedy(observations, action_mask)
            return actions if len(observations) == 1 else 1 - actions  # a decision in Python

    with pytest.raises(Fault, match="would differ from the agent"):
        Decides("CartPole-v1").export(tmp_path / "policy.py")
    assert not list(tmp_path.iterdir())


def test_an_agent_with_memory_says_how_it_is_exported():
    class Forgetful(type(ACTOR_CRITIC("CartPole-v1"))):
        acting_memory = "memory"

    with pytest.raises(Fault, match=r"define greedy_step\(\)"):
        policy_graph(Forgetful("CartPole-v1"))


# --- the command and the files ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from rl_lab import train

    folder = tmp_path_factory.mktemp("runs")
    settings = ["--total-timesteps", "600", "--eval-episodes", "2", "--run-dir", str(folder)]
    assert train.main(["--agent", "ppo", "--env", "CartPole-v1", *settings]) == 0
    return next(folder.glob("*/*/*"))


def test_command(trained, tmp_path, capsys):
    for kind, suffix in (("onnx", ".onnx"), ("numpy", ".py"), ("c", ".c")):
        assert export.main([str(trained), "--format", kind]) == 0
        assert (trained / f"policy{suffix}").stat().st_size > 1000
        assert export.main([str(trained), "--output", str(tmp_path / f"own{suffix}")]) == 0
        assert (tmp_path / f"own{suffix}").read_bytes() == (trained / f"policy{suffix}").read_bytes()
    capsys.readouterr()
    for wrong in (
        [str(trained)],
        [str(trained), "--format", "torch"],
        [str(trained), "--output", "policy.bin"],
        [str(trained), "--output", str(tmp_path / "none" / "policy.c")],
        [str(trained), "--output", str(tmp_path), "--format", "c"],
        [str(tmp_path), "--format", "c"],
    ):
        assert export.main(wrong) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_module_needs_numpy_alone(trained, tmp_path):
    agent = __import__("rl_lab.experiment").experiment.load_run(trained).agent()
    x = observations_like(agent, 20)
    agent.export(tmp_path / "mine.py")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, numpy as np\nimport mine\nx = np.load('x.npy')\n"
        "print(mine.predict(x).tolist(), int(mine.predict(x[0])), any('rl_lab' in name for name in sys.modules))"
    )
    paths = [path for path in sys.path if path and not (Path(path) / "rl_lab").exists()]
    command = [sys.executable, "-S", "-c", f"import sys\nsys.path += {paths}\n{code}"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    actions = agent.predict(x).tolist()
    assert found.stdout.strip() == f"{actions} {actions[0]} False", found.stderr


def test_the_test_in_the_c_file_passes(trained, tmp_path):
    if COMPILER is None:
        pytest.skip("needs a C compiler")
    export.main([str(trained), "--output", str(tmp_path / "p.c")])
    build = [COMPILER, "-std=c99", "-O2", "-Wall", "-Werror", "-DPOLICY_MAIN", "p.c", "-lm", "-o", "p"]
    subprocess.run(build, cwd=tmp_path, check=True)
    assert "0 of 16 observations differ" in subprocess.run([tmp_path / "p"], capture_output=True, text=True).stdout
    text = (tmp_path / "p.c").read_text()
    (tmp_path / "p.c").write_text(
        re.sub(r"(policy_step\(const.*?\{\n)", r"\1    (void)observation; action[0] = 7; return;\n", text)
    )
    subprocess.run([flag for flag in build if flag not in ("-Wall", "-Werror")], cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "p"], capture_output=True).returncode == 16


def test_a_failing_write_leaves_the_older_file(trained, tmp_path, monkeypatch):
    file = tmp_path / "policy.py"
    file.write_text("older")
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert export.main([str(trained), "--output", str(file)]) == 4
    assert file.read_text() == "older"
    assert [found.name for found in tmp_path.iterdir()] == ["policy.py"]
