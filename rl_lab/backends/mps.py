"""Queries of torch.backends.mps: Apple's GPU backend is not available."""


def is_available() -> bool:
    """Always False."""
    return False


def is_built() -> bool:
    """Always False."""
    return False
