"""Can be set, and changes nothing."""

enabled = False
deterministic = True
benchmark = False
allow_tf32 = False


def is_available() -> bool:
    return False
