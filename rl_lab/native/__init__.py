"""Machine code: what a kernel is, where its compiled form is kept, and how kernels are called by address.

This floor knows neither tensors nor environments. The engine, the environments, the rollout loop and NEAT all stand on it.
"""
