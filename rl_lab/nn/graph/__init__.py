"""The evolved network: a graph of named nodes and weighted edges, evaluated for a whole batch by one primitive."""

from rl_lab.nn.graph.network import GraphNetwork, layers

__all__ = ["GraphNetwork", "layers"]
