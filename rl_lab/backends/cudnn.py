"""Settings of torch.backends.cudnn. They can be set and have no effect."""

enabled = False
deterministic = True
benchmark = False
allow_tf32 = False


def is_available() -> bool:
    """Always False."""
    return False
