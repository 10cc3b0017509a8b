"""Machine code: where it is kept, what a kernel is, and how kernels are called by address. Knows neither tensors nor worlds."""
