"""All exceptions and warnings of rl_lab. Each also derives from the built-in class that PyTorch raises in the same situation."""

from rl_lab.engine.errors import (
    AnomalyError,
    DeviceError,
    DtypeError,
    EagerWarning,
    EnvironmentFault,
    EnvironmentWarning,
    FileError,
    GraphError,
    NumericalError,
    ShapeError,
    StateError,
)

__all__ = [
    "AnomalyError",
    "DeviceError",
    "DtypeError",
    "EagerWarning",
    "EnvironmentFault",
    "EnvironmentWarning",
    "FileError",
    "GraphError",
    "NumericalError",
    "ShapeError",
    "StateError",
]
