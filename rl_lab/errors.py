"""Classes of errors, as ``rl_lab.errors``; each also is of the built-in class that PyTorch raises in the same place."""

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
