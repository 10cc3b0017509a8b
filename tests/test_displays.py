"""What notebooks show of tensors, modules, programs, networks and runs: well-formed, short, and with escaped text."""

import importlib.util
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest

import rl_lab as rl
from rl_lab import nn
from rl_lab.engine.html import html_table
from rl_lab.engine.program import SHOWN
from rl_lab.experiment import load_run, train
from rl_lab.experiment.figures import draw_run
from rl_lab.experiment.logger import points_of, whole_records
from rl_lab.nn import GraphNetwork, summary

HOSTILE = "<script>alert('$\\bad{')</script> & \"x\""
SVG = "{http://www.w3.org/2000/svg}"


class _Reader(HTMLParser):
    """Checks that tags are closed in order; keeps the tags and the text."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_tables_escape_text():
    table = read(html_table([HOSTILE, "n"], [(HOSTILE, 1234567), (None, 0.123456)], HOSTILE))
    assert set(table.tags) <= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert table.text.count(HOSTILE) == 3
    assert "1,234,567" in table.text
    assert "0.1235" in table.text
    with pytest.raises(AssertionError):
        read("<table><tr></table>")


@pytest.mark.parametrize(
    ("make", "facts"),
    [
        (lambda: rl.ones(2, 3), ["2 x 3", "float32", "not required", "[[1., 1., 1.]"]),
        (lambda: rl.tensor([1, 2]), ["2", "int64", "not required", "[1, 2]"]),
        (lambda: rl.ones(2, requires_grad=True), ["leaf, no gradient yet"]),
        (lambda: rl.ones(2, requires_grad=True) * 2, ["computed by mul"]),
        (lambda: rl.tensor(3.5), ["scalar", "3.5"]),
        (lambda: rl.zeros(0, 4), ["0 x 4"]),
        (lambda: nn.Parameter(rl.ones(2)), ["Parameter"]),
    ],
)
def test_tensors(make, facts):
    text = read(make()._repr_html_()).text
    for fact in facts:
        assert fact in text, text


def test_a_tensor_with_a_gradient():
    x = rl.ones(2, requires_grad=True)
    x.sum().backward()
    assert "leaf with a gradient" in read(x._repr_html_()).text


def test_large_tensors_stay_short():
    assert len(rl.zeros(300, 300)._repr_html_()) < 2_000


def test_showing_a_tensor_while_recording_does_not_read_it():
    @rl.compile
    def double(x):
        y = x * 2
        assert "recording" in y._repr_html_()
        return y

    for _ in range(3):
        double(rl.ones(2))
    assert len(double.programs) == 1


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Flatten(), nn.Linear(288, 10))


def test_summary():
    """Counts by hand: 3 * 3 * 3 * 8 + 8, 2 * 8, and 288 * 10 + 10."""
    module = network()
    module[4].bias.requires_grad_(False)
    told = summary(module, (2, 3, 8, 8))
    assert [layer.size for layer in told.layers] == [224, 16, 0, 0, 2890]
    assert [layer.output for layer in told.layers] == ["2 x 8 x 6 x 6"] * 3 + ["2 x 288", "2 x 10"]
    assert told.parameters == sum(weight.numel() for weight in module.parameters()) == 3130
    assert told.parameters - told.trainable == 10
    assert "3,130 parameters, 10 of them frozen" in str(told)
    assert "2 x 288" in read(told._repr_html_()).text
    assert "weight 8 x 3 x 3 x 3, bias 8" in read(module._repr_html_()).text


def test_summary_leaves_the_module_alone():
    module = network()
    before = {name: value.numpy().copy() for name, value in module.state_dict().items()}
    state = rl.get_rng_state()
    summary(module, rl.ones(2, 3, 8, 8))
    assert module.training
    assert module._hooks is None
    assert (rl.get_rng_state().numpy() == state.numpy()).all()
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


def test_summary_counts_shared_parameters_once():
    layer = nn.Linear(4, 4)
    other = nn.Linear(4, 4)
    other.weight = layer.weight
    told = summary(nn.Sequential(layer, other))
    assert [row.size for row in told.layers] == [20, 4]
    with pytest.raises(RuntimeError):
        summary(layer, (1, 5))
    assert [row.output for row in summary(nn.LSTM(4, 8), (5, 2, 4)).layers] == ["5 x 2 x 8, 1 x 2 x 8, 1 x 2 x 8"]


def test_names_of_layers_are_escaped():
    module = nn.Module()
    module.add_module(HOSTILE, nn.Linear(1, 1))
    shown = read(module._repr_html_())
    assert "script" not in shown.tags
    assert HOSTILE in shown.text


def evolved() -> GraphNetwork:
    made = GraphNetwork([HOSTILE, "velocity"], ["force"])
    hidden = made.add_node()
    made.add_edge(HOSTILE, hidden, 1.0)
    made.add_edge(hidden, "force", -2.0)
    return made


@pytest.mark.parametrize("with_matplotlib", [True, False])
def test_networks(with_matplotlib, monkeypatch):
    """A picture by matplotlib, or by the engine where matplotlib is missing; no HTML, which a notebook would prefer."""
    if with_matplotlib:
        pytest.importorskip("matplotlib")
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    svg = evolved()._repr_svg_()
    assert ElementTree.fromstring(svg).tag == f"{SVG}svg"
    assert evolved()._repr_html_() is None
    assert with_matplotlib or HOSTILE in texts(svg)
    assert not list(ElementTree.fromstring(svg).iter(f"{SVG}script"))


def test_graphs_of_tensors_and_programs():
    x = rl.ones(2, requires_grad=True)
    dot = rl.draw_graph((x * 2).sum(), names={HOSTILE: x})
    assert dot.startswith("digraph")
    assert HOSTILE in texts(dot._repr_svg_())


def test_programs():
    @rl.compile
    def many(x):
        for _ in range(SHOWN):
            x = x * 1.5 + x
        return x

    x = rl.ones(2, 3)
    many(x)
    program = many.programs[0]
    shown = read(program._repr_html_())
    assert shown.tags.count("tr") == SHOWN + 1
    assert f"the first {SHOWN} are shown" in shown.text
    assert "x = x * 1.5 + x" in shown.text  # the line of the code
    assert "2x3" in shown.text


@pytest.fixture
def run(workplace):
    return train("ppo", "CartPole-v1", seed=1, total_timesteps=600, eval_frequency=200, short_episodes=1, eval_episodes=2)


def test_runs(run, monkeypatch):
    text = run._repr_html_()
    shown = read(text[: text.index("<svg")])
    for fact in ("ppo", "CartPole-v1", "768", "greedy return"):
        assert fact in shown.text
    ElementTree.fromstring(text[text.index("<svg") :])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "<svg" not in run._repr_html_()


def test_the_curve_of_a_run_has_its_points(run):
    points = points_of(run.path)
    greedy = [point for point in points if point.tag == "eval/return_mean"]
    panel = draw_run(points).axes[0]
    line = next(line for line in panel.get_lines() if line.get_label() == "greedy")
    assert line.get_xdata().tolist() == [point.step for point in greedy]
    assert line.get_ydata().tolist() == [point.value for point in greedy]


def test_a_run_of_somebody_else(run):
    """Its configuration is text, and a damaged log is named instead of a curve."""
    (run.path / "config.toml").write_text(f"agent = '''{HOSTILE}'''\nenv = 'CartPole-v1'\nseed = 1\n", encoding="utf-8")
    (log,) = run.path.glob("events.out.tfevents.*")
    data = bytearray(log.read_bytes())
    begin = whole_records(bytes(data))[1] + 12
    data[begin : begin + 8] = bytes([255] * 8)
    log.write_bytes(bytes(data))
    text = load_run(run.path)._repr_html_()
    assert "<script" not in text
    assert "is damaged at byte" in read(text).text
