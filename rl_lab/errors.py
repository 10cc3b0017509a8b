"""All exceptions and warnings of rl_lab. Each also derives from the built-in class that PyTorch raises in the same situation."""

from rl_lab.engine.errors import (
    AnomalyError,
    ConstructionError,
    DeviceError,
    DtypeError,
    EagerWarning,
    EnvironmentFault,
    EnvironmentWarning,
    FileError,
    GraphError,
    NumericalError,
    OptimizerError,
    ShapeError,
    StateError,
)

__all__ = [
    "AnomalyError",
    "ConstructionError",
    "DeviceError",
    "DtypeError",
    "EagerWarning",
    "EnvironmentFault",
    "EnvironmentWarning",
    "FileError",
    "GraphError",
    "NumericalError",
    "OptimizerError",
    "ShapeError",
    "StateError",
]
