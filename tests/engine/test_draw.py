"""`rl.draw_graph`: every node with its name, parents and children; SVG without Graphviz, in which nothing overlaps."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.engine.svg import Box, Line, svg
from rl_lab.nn import GraphNetwork

SVG = "{http://www.w3.org/2000/svg}"


def edges_of(dot: str) -> set[tuple[str, str]]:
    """The edges of DOT text, as pairs of the first lines of the labels."""
    names = {k: label.split("\\n")[0] for k, label in re.findall(r'(n\d+) \[label="(.*?)"', dot)}
    assert len(set(names.values())) == len(names), "two nodes have the same name"
    return {(names[a], names[b]) for a, b in re.findall(r"(n\d+) -> (n\d+)", dot)}


def two_outputs():
    layers = rl.nn.Sequential(rl.nn.Linear(2, 3), rl.nn.Tanh(), rl.nn.Linear(3, 1))
    features = layers[1](layers[0](rl.ones(4, 2)))
    return layers, [layers[2](features).sum(), (features**2).sum()]


def test_parents_and_children_of_every_node_of_a_tape_with_several_outputs():
    layers, outputs = two_outputs()
    dot = rl.draw_graph(outputs, names=layers.named_parameters())
    assert edges_of(dot) == {
        ("0.weight", "linear"), ("0.bias", "linear"), ("linear", "tanh"), ("tanh", "linear 2"), ("2.weight", "linear 2"),
        ("2.bias", "linear 2"), ("linear 2", "sum"), ("tanh", "square"), ("square", "sum 2"),
    }  # fmt: skip
    assert re.search(r'label="tanh\\n4x3\\n2 uses"', dot)
    assert dot.count("palegreen") == 2


def test_a_leaf_with_two_names_has_both_and_a_name_of_two_leaves_is_refused():
    x, y = rl.ones(2, requires_grad=True), rl.ones(2, requires_grad=True)
    assert "x = again" in rl.draw_graph((x * y).sum(), names=[("x", x), ("again", x), ("y", y)])
    with pytest.raises(ValueError, match="two tensors are called 'x'"):
        rl.draw_graph((x * y).sum(), names=[("x", x), ("x", y)])


def test_a_parent_that_is_added_after_a_forward_pass_is_drawn():
    net = GraphNetwork(["a", "b"], ["y"])
    net.add_edge("a", "y", 2.0)
    before = net(rl.ones(1, 2))
    net.add_edge("b", "y", -1.0)
    assert edges_of(rl.draw_graph(net)) == {("a", "y"), ("b", "y")} == {(p, "y") for p in net.parents("y")}
    before.sum().backward()
    assert net.weight.grad.tolist() == [1.0, 0.0]
    assert rl.draw_graph(net).count("penwidth") == 2


def test_programs_are_drawn(tmp_path):
    @rl.compile
    def double_and_add(x):
        return x * 2.0 + 1.0

    for _ in range(2):
        double_and_add(rl.ones(3))
    dot = rl.draw_graph(double_and_add.programs[0], tmp_path / "program.svg", profile=True)
    assert "us (" in dot
    assert " B" in (tmp_path / "program.svg").read_text()


def rectangles(path) -> list[tuple[float, float, float, float]]:
    found = [
        [float(r.get(key)) for key in ("x", "y", "width", "height")]
        for r in ElementTree.parse(path).iter(f"{SVG}rect")
        if r.get("x")
    ]
    return [(x, y, x + w, y + h) for x, y, w, h in found]


def overlapping(boxes) -> int:
    return sum(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for i, a in enumerate(boxes) for b in boxes[i + 1 :])


@pytest.mark.parametrize("recurrent", [False, True])
def test_two_hundred_nodes_do_not_overlap(tmp_path, recurrent):
    random = np.random.default_rng(1)
    net = GraphNetwork(12, 4, recurrent=recurrent)
    for i in range(200):
        sources = random.choice([*net.inputs, *net.hidden], 2, replace=False)
        name = net.add_node(f"node number {i}")
        for source in sources:
            net.add_edge(str(source), name, float(random.normal()))
    for output in net.outputs:
        for source in random.choice(net.hidden, 5, replace=False):
            net.add_edge(str(source), output, float(random.normal()))
    rl.draw_graph(net, tmp_path / "net.svg")
    text = (tmp_path / "net.svg").read_text()
    boxes = rectangles(tmp_path / "net.svg")
    assert len(boxes) == 216
    assert overlapping(boxes) == 0
    assert text.count('marker-end="url(#tip)"') == len(net.edges)
    width, height = (float(ElementTree.fromstring(text).get(key)) for key in ("width", "height"))
    assert all(x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height for x0, y0, x1, y1 in boxes)
    assert all(f">{name}</text>" in text for name in (*net.inputs, *net.nodes))


def test_overlaps_are_counted():
    assert overlapping([(0, 0, 2, 2), (1, 1, 3, 3), (2, 0, 3, 1)]) == 1


def test_children_are_below_their_parents_and_cycles_are_dashed(tmp_path):
    lines = [Line(0, 1), Line(1, 2), Line(2, 0), Line(2, 2)]
    (tmp_path / "x.svg").write_text(svg([Box((name,)) for name in "abc"], lines))
    tops = [y for _, y, _, _ in rectangles(tmp_path / "x.svg")]
    assert tops == sorted(tops)
    assert len(set(tops)) == 3
    assert (tmp_path / "x.svg").read_text().count("dasharray") == 2


def test_text_is_escaped(tmp_path):
    net = GraphNetwork(['<a> & "b"'], ["y"])
    net.add_edge('<a> & "b"', "y", 1.0)
    assert '"<a> & \\"b\\""' in rl.draw_graph(net, tmp_path / "net.svg")
    assert '<a> & "b"' in [element.text for element in ElementTree.parse(tmp_path / "net.svg").iter(f"{SVG}text")]


def test_what_cannot_be_drawn(tmp_path):
    for target in (3, [], [rl.ones(1), 2]):
        with pytest.raises(TypeError, match="draw_graph takes"):
            rl.draw_graph(target)
    with pytest.raises(ValueError, match=r"\.svg, \.png or \.pdf"):
        rl.draw_graph(rl.ones(1), tmp_path / "x.jpeg")
