"""The autograd core: kernels and launches, the tape, tensors and their operations, recorded programs."""
