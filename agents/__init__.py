"""Algorithms, one a file. Each names its paper and reads from top to bottom: config, networks, losses, act, step."""
