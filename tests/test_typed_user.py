"""The annotated user program runs, and the public names are declared for type checkers."""

import types

import rl_lab
from tests import typed_user


def test_the_program_runs():
    typed_user.tensors()
    typed_user.families()
    policy = typed_user.modules()
    typed_user.distributions(policy)
    assert typed_user.training(policy) > 0.0


def test_every_public_name_is_declared():
    """A type checker in strict mode refuses ``rl_lab.x`` unless x is in ``__all__``."""
    names = {name for name in vars(rl_lab) if not name.startswith("_") and name != "TYPE_CHECKING"}
    modules = {name for name in names if isinstance(getattr(rl_lab, name), types.ModuleType)}
    assert names - modules <= set(rl_lab.__all__), "add these names to __all__ in rl_lab/__init__.py"
    assert {"autograd", "backends", "cuda", "distributions", "envs", "errors", "nn", "optim"} <= set(rl_lab.__all__)
    assert len(set(rl_lab.__all__)) == len(rl_lab.__all__)
