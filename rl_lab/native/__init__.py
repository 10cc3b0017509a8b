"""Machine code: kernels, the cache of their compiled code, and calls by address.

This layer does not use tensors or environments. The engine, the environments, the rollout loop and NEAT use this layer.
"""
