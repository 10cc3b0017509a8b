"""Files of graph networks under their earlier name; the code is in `rl_lab.nn.graph.files`."""

from rl_lab.nn.graph.files import load_graph, save_graph

__all__ = ["load_graph", "save_graph"]
