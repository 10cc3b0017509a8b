"""The operations by family. A family imports only those before it; `methods`, the last, hangs all of them on the tensor.

``tests/test_architecture.py`` lists the order. A gradient rule that needs a later family calls it as a method of its gradient.
"""

from rl_lab.engine.ops import absent as absent
from rl_lab.engine.ops import methods as methods
from rl_lab.engine.tensor import Tensor as Tensor
