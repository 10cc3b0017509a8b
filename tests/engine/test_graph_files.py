"""GraphNetworks in files and as pictures."""

import json
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.engine.errors import GraphError
from rl_lab.nn.graph import GraphNetwork
from rl_lab.nn.graph.files import load_graph, save_graph
from rl_lab.nn.graph.picture import NEGATIVE, POSITIVE, UNKNOWN, _places, as_image, draw_network, save_picture, to_dot
from tests.engine.test_graph import random_graph, xor_like


@pytest.mark.parametrize("recurrent", [False, True])
def test_a_network_survives_bit_for_bit(tmp_path, recurrent):
    rng = np.random.default_rng(1)
    for i in range(20):
        net = random_graph(rng, 30, recurrent)
        save_graph(net, tmp_path / f"net.{i}")
        other = load_graph(tmp_path / f"net.{i}")
        assert other.describe() == net.describe()
        assert other.nodes == net.nodes
        assert other.edges == net.edges
        for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
            assert ours.detach().numpy().tobytes() == theirs.detach().numpy().tobytes()


def test_a_person_can_read_and_edit_it(tmp_path):
    net = xor_like()
    with rl.no_grad():
        net.weight.fill_(0.1)
    save_graph(net, tmp_path / "net")
    text = (tmp_path / "net.json").read_text()
    assert '  {"source": "a", "target": "h", "weight": 0.1}' in text.splitlines()[-6:][0] + text  # one line per edge
    assert all(edge["weight"] == 0.1 for edge in json.loads(text)["edges"])
    (tmp_path / "net.json").write_text(text.replace('"h", "weight": 0.1', '"h", "weight": 0.25'))
    with pytest.raises(GraphError, match="differ in weight"):
        load_graph(tmp_path / "net")
    (tmp_path / "net.safetensors").unlink()
    assert load_graph(tmp_path / "net").weight[net.edge_index("a", "h")].item() == 0.25


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": 1}', "\x00"])
def test_files_that_are_none(tmp_path, content):
    (tmp_path / "net.json").write_text(content)
    with pytest.raises(GraphError, match=r"cannot be read|not the description"):
        load_graph(tmp_path / "net")
    with pytest.raises(GraphError, match="cannot be read"):
        load_graph(tmp_path / "nothing")


def test_damaged_bits(tmp_path):
    save_graph(xor_like(), tmp_path / "net")
    (tmp_path / "net.safetensors").write_bytes(b"no tensors")
    with pytest.raises(GraphError, match="cannot be read"):
        load_graph(tmp_path / "net")


def test_pictures(tmp_path):
    net = xor_like()
    for suffix in ("svg", "png", "dot"):
        save_picture(net, tmp_path / f"net.{suffix}", "a title")
    ElementTree.parse(tmp_path / "net.svg")
    svg = (tmp_path / "net.svg").read_text()
    assert POSITIVE in svg
    assert NEGATIVE in svg
    assert (tmp_path / "net.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"\.svg, \.png or \.dot"):
        save_picture(net, tmp_path / "net.jpeg")
    image = as_image(draw_network(net))
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50


def test_edges_are_drawn_by_sign_and_weight():
    net = xor_like()
    arrows = [p for p in draw_network(net).axes[0].patches if type(p).__name__ == "FancyArrowPatch"]
    assert len(arrows) == 4
    widths = [a.get_linewidth() for a in arrows]  # edges are drawn from the lightest to the heaviest
    assert widths == sorted(widths)
    assert widths[0] < widths[-1] == 3.6
    from matplotlib.colors import to_hex

    assert [to_hex(a.get_edgecolor()) for a in arrows] == [POSITIVE, NEGATIVE, POSITIVE, POSITIVE]


@pytest.mark.parametrize("recurrent", [False, True])
def test_places(recurrent):
    """No two nodes share a place. Edges of feed-forward networks lead to the right."""
    rng = np.random.default_rng(2)
    for _ in range(50):
        net = random_graph(rng, 40, recurrent)
        places = _places(net)
        assert set(places) == {*net.inputs, *net.nodes}
        assert len(set(places.values())) == len(places)
        assert all(places[name][0] == 0 for name in net.inputs)
        if not recurrent:
            for source, target in net.edges:
                if source not in net.outputs:
                    assert places[source][0] < places[target][0]


def test_dot_names_everything():
    net = xor_like()
    net.add_node('a "quoted" one', aggregation="product")
    text = to_dot(net)
    assert '"h" -> "y" [color="#2b6cb0", penwidth=3.50, tooltip="1.5"];' in text
    assert r'"a \"quoted\" one"' in text
    assert "product" in text
    assert text.count("->") == 4


def test_edges_stay_inside_the_picture():
    """Long edges bend above and below the nodes without touching the border of the picture."""
    net = GraphNetwork(4, 2)
    for name in ("p", "q", "r"):
        net.add_node(name)
    net.add_edge("input0", "p", 1.0)
    for source, target in (("p", "q"), ("q", "r"), ("r", "output0")):
        net.add_edge(source, target, 1.0)
    for source in ("input0", "input1", "input2", "input3"):
        net.add_edge(source, "output0", 3.0)
        net.add_edge(source, "output1", -3.0)
    image = as_image(draw_network(net))
    border = np.concatenate([image[:3].reshape(-1, 3), image[-3:].reshape(-1, 3)])
    assert (border == 255).all()


def test_a_crowd_is_drawn_in_a_picture_of_ordinary_size():
    net = GraphNetwork(300, 3)
    for i in range(300):
        for k in range(3):
            net.add_edge(f"input{i}", f"output{k}", (i - 150) / 100)
    image = as_image(draw_network(net))
    assert max(image.shape) < 1500
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100


def test_a_weight_that_is_no_number_is_drawn(tmp_path):
    net = GraphNetwork(1, 2)
    net.add_edge("input0", "output0", math.nan)
    net.add_edge("input0", "output1", 1.0)
    for suffix in ("png", "svg", "dot"):
        save_picture(net, tmp_path / f"net.{suffix}")
    assert UNKNOWN in to_dot(net)
    assert "penwidth=3.50" in to_dot(net)
