"""The exceptions and warnings of rl_lab.

Each exception also derives from the built-in exception that PyTorch raises in the same situation, so code written for PyTorch
catches it.
"""


class ShapeError(RuntimeError):
    """Shapes do not fit together; the message names the shapes."""


class DtypeError(TypeError, RuntimeError):
    """A dtype does not exist in rl_lab, or the operation does not accept it."""


class DeviceError(RuntimeError):
    """A device is not the cpu."""


class StateError(RuntimeError):
    """A call does not fit the state of a tensor or a graph: saved values were freed, or a saved value was modified in place."""


class OptimizerError(StateError, ValueError):
    """Parameters or a saved state do not fit an optimizer."""


class ConstructionError(StateError, AttributeError):
    """A module gets a parameter or a submodule before ``super().__init__()``."""


class NumericalError(ArithmeticError):
    """A number is NaN or infinite, but must be finite."""


class AnomalyError(NumericalError, RuntimeError):
    """A gradient became NaN under ``detect_anomaly``; the message names the operation and the line of its forward pass."""


class EagerWarning(UserWarning):
    """A compiled function cannot be recorded and runs eagerly; the message names the line and the reason."""


class EnvironmentFault(RuntimeError):
    """An environment raised an exception or returned a value that is not a number; the message names the environment."""


FOREIGN_ERRORS: tuple[type[BaseException], ...] = (Exception, SystemExit)
"""What the code of an environment may raise. An environment whose window was closed often calls ``sys.exit``."""


class EnvironmentWarning(UserWarning):
    """A habit of an environment that is accepted; the message names what to mend."""


class GraphError(ValueError):
    """A change would make a graph network invalid: a cycle, a duplicate or an unknown name. The graph is unchanged."""


class FileError(RuntimeError):
    """A file is missing or damaged, or has another format."""
