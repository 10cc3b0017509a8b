"""NEAT: networks whose topology evolves (Stanley and Miikkulainen 2002).

In reading order: `config` (the parameters), `genome` (a population as arrays), `innovation` (historical markings), `kernels` (distance,
crossover, mutation), `phenotypes` and `networks` (from genomes to outputs), `species` (fitness sharing), `evolution` (one generation
after another). Then `episodes` and `agent` (evaluation in environments), `gradients` (policy-gradient training of single networks),
`selection` (NSGA-II, novelty), `importing` (neat-python's files) and `pictures`.
"""

from rl_lab.agents.neat.config import NEATConfig
from rl_lab.agents.neat.evolution import Evolution, Generation, Result, evolve
from rl_lab.agents.neat.genome import Genome
from rl_lab.agents.neat.networks import Network, Networks, each

__all__ = ["Evolution", "Generation", "Genome", "NEATConfig", "Network", "Networks", "Result", "each", "evolve"]
