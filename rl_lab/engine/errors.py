"""What can go wrong, by class: a user's tests can tell a wrong shape from a wrong state.

Each class also inherits the built-in exception that PyTorch raises in the same place, so code written for PyTorch catches it.
"""


class ShapeError(RuntimeError):
    """Shapes that do not fit together; the message names them."""


class DtypeError(TypeError, RuntimeError):
    """A dtype outside float32, int64 and bool, or one that the operation does not take."""


class DeviceError(RuntimeError):
    """A device other than ``cpu``."""


class StateError(RuntimeError):
    """A call that does not fit the state of the graph: backward over freed values, a saved value changed in place."""


class NumericalError(ArithmeticError):
    """NaN or infinity where a finite number is needed."""


class AnomalyError(NumericalError, RuntimeError):
    """A gradient that became NaN under ``detect_anomaly``; the message names the operation and the line of its forward pass."""


class EagerWarning(UserWarning):
    """A compiled function runs eagerly; the message names the line and the reason."""


class EnvironmentFault(RuntimeError):
    """An environment that raised or returned something that is not a number; the message names it."""


class EnvironmentWarning(UserWarning):
    """A habit of an environment that is accepted; the message names what to mend."""


class GraphError(ValueError):
    """A change that a graph network cannot take: a cycle, a duplicate, an unknown name. The graph is as it was before."""


class FileError(RuntimeError):
    """A file that is missing, damaged, or not of this project."""
