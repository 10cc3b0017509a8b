"""NoisyLinear: a layer whose random weights make a policy explore."""

import math

import rl_lab.engine.random as random
from rl_lab.engine.device import DeviceLike
from rl_lab.engine.dtype import DTypeLike
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import empty
from rl_lab.engine.random import Generator
from rl_lab.nn import functional, init
from rl_lab.nn.module import Module, Parameter


class NoisyLinear(Module):
    """Linear layer with factorised Gaussian noise on weights and biases (Fortunato et al. 2018, "Noisy networks for exploration").

    w = mu + sigma * f(e_out) f(e_in)^T with f(x) = sign(x) sqrt(|x|) (equations 10 and 11). In training mode every forward pass
    draws one new noise sample for the whole batch from ``generator``. In evaluation mode the weights are ``mu``. ``weight`` and
    ``bias`` hold mu and start uniform on +-1 / sqrt(in_features); ``weight_sigma`` and ``bias_sigma`` start at
    initial / sqrt(in_features). Raises ShapeError if a size is not positive.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        initial: float = 0.5,
        generator: Generator | None = None,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        if in_features < 1 or out_features < 1:
            raise ShapeError(f"NoisyLinear needs positive sizes, got {in_features} and {out_features}")
        self.in_features = in_features
        self.out_features = out_features
        self.generator = generator
        self.initial = initial
        self.weight = Parameter(empty((out_features, in_features)))
        self.bias = Parameter(empty((out_features,)))
        self.weight_sigma = Parameter(empty((out_features, in_features)))
        self.bias_sigma = Parameter(empty((out_features,)))
        init.start(self, generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new means and set the standard deviations to their initial value."""
        bound = 1.0 / math.sqrt(self.in_features)
        for mean, sigma in ((self.weight, self.weight_sigma), (self.bias, self.bias_sigma)):
            init.uniform_(mean, -bound, bound, generator)
            init.constant_(sigma, self.initial * bound)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return functional.linear(input, self.weight, self.bias)
        e_in = _noise(self.in_features, self.generator)
        e_out = _noise(self.out_features, self.generator)
        weight = self.weight + self.weight_sigma * e_out.unsqueeze(1) * e_in
        return functional.linear(input, weight, self.bias + self.bias_sigma * e_out)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


def _noise(count: int, generator: Generator | None) -> Tensor:
    """f(e) for ``count`` standard normal numbers e."""
    x = random.randn(count, generator=generator)
    return x.sign() * x.abs().sqrt()
