"""Random streams. The state of a stream is a tensor of four words; it is saved, restored and replayed like any other tensor."""

import math
from collections.abc import Sequence

import numpy as np

from rl_lab.engine.device import CPU, DeviceLike, check_device
from rl_lab.engine.device import device as device_type
from rl_lab.engine.dtype import DTypeLike, as_dtype, bool_, float32, int64
from rl_lab.engine.errors import DtypeError, ShapeError, StateError
from rl_lab.engine.kernels import random as random_kernels
from rl_lab.engine.launch import launch, refuse
from rl_lab.engine.number import real
from rl_lab.engine.operations import hang
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.arithmetic import where
from rl_lab.engine.ops.creation import as_tensor, check_ignored, tensor
from rl_lab.engine.ops.gathering import check_deviations, check_probabilities, launch_checked
from rl_lab.engine.ops.in_place import write_in_place
from rl_lab.engine.ops.operands import as_float, broadcast_shape, constant, size_argument
from rl_lab.engine.ops.reduction import softmax
from rl_lab.engine.tape import Node, attach, no_grad
from rl_lab.engine.tensor import empty
from rl_lab.engine.types import Gradients, Sizes
from rl_lab.native.primitive import Primitive


def _seed_sequence(seed: int | np.random.SeedSequence) -> np.random.SeedSequence:
    if isinstance(seed, np.random.SeedSequence):
        return seed
    if not isinstance(seed, (int, np.integer)):
        raise TypeError(f"a seed must be an integer, got {seed!r}")
    if seed < 0:
        raise ValueError(f"a seed must not be negative, got {seed}")
    return np.random.SeedSequence(seed)


def _first_words(sequence: np.random.SeedSequence) -> Tensor:
    """The state of a stream at its start, int64 (4,)."""
    return tensor(sequence.generate_state(4, np.uint64).view(np.int64))


class Generator:
    """A stream of random numbers (xoshiro256++), seeded through ``numpy.random.SeedSequence``.

    `spawn` makes independent streams from the same seed; `get_state` and `set_state` save and restore the position. As in PyTorch,
    the first argument may also be a device.
    """

    def __init__(self, seed: int | np.random.SeedSequence | str | device_type = 0, device: DeviceLike = None):
        if isinstance(seed, (str, device_type)):
            device = seed
            seed = 0
        check_device(device)
        self.seed_sequence = _seed_sequence(seed)
        self.state = _first_words(self.seed_sequence)

    def manual_seed(self, seed: int | np.random.SeedSequence) -> "Generator":
        """Start the stream of this seed. Raises ValueError if the seed is negative."""
        self.seed_sequence = _seed_sequence(seed)
        self.state.copy_(_first_words(self.seed_sequence))
        return self

    def initial_seed(self) -> int:
        """The seed with which the stream was started last. Raises StateError for a stream that `spawn` made: it has none."""
        refuse("it reads the seed of a stream")
        entropy = self.seed_sequence.entropy
        if self.seed_sequence.spawn_key or not isinstance(entropy, int):
            raise StateError("this stream was made by spawn(), so it has no seed of its own")
        return entropy

    @property
    def device(self) -> device_type:
        """Where the stream draws: always the cpu."""
        return CPU

    def spawn(self, count: int) -> "list[Generator]":
        """``count`` independent streams; each call gives other streams."""
        return [Generator(child) for child in self.seed_sequence.spawn(count)]

    def as_seed(self) -> int:
        """A non-negative integer derived from the seed, for code that takes a seed instead of a stream."""
        return int(self.seed_sequence.generate_state(1)[0])

    def get_state(self) -> Tensor:
        """The position in the stream, as a copy: int64 (4,)."""
        return self.state.clone()

    def set_state(self, state: Tensor | np.ndarray) -> "Generator":
        """Return to a position from `get_state`. Raises ShapeError unless ``state`` is int64 (4,)."""
        state = as_tensor(state)
        if state.sizes != (4,) or state.dtype is not int64:
            raise ShapeError(f"a generator's state is 4 int64 words, got {list(state.sizes)} of {state.dtype.name}")
        self.state.copy_(state)
        return self


default_generator = Generator(0)


def check_float(dtype: DTypeLike, device: DeviceLike) -> None:
    """Raise DtypeError unless ``dtype`` is None or means float32, and DeviceError unless ``device`` is None or the cpu."""
    check_device(device)
    if dtype is not None and as_dtype(dtype) is not float32:
        raise DtypeError(f"uniform and normal deviates are float32, not {dtype}")


def manual_seed(seed: int) -> Generator:
    """Seed the default stream, which random functions use unless they get another one."""
    return default_generator.manual_seed(seed)


def _state(generator: Generator | None) -> Tensor:
    return (generator or default_generator).state


def _fill(out: Tensor, kernel: Primitive, generator: Generator | None, *numbers: float, source: Tensor | None = None) -> Tensor:
    """Fill a contiguous tensor by a kernel that draws from a stream and, if given, reads ``source``; return the tensor."""
    state = _state(generator)
    launch(kernel, (out, state) if source is None else (out, source, state), (out.numel(), *numbers))
    state.storage.version += 1
    return out


def rand(
    *sizes: Sizes,
    size: Sizes | None = None,
    generator: Generator | None = None,
    dtype: DTypeLike = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
    **ignored: object,
) -> Tensor:
    """Uniform deviates on [0, 1), float32 of shape ``sizes``."""
    check_float(dtype, device)
    check_ignored(ignored)
    return _fill(
        empty(size_argument(sizes if size is None else (size,))), random_kernels.uniform, generator, 0.0, 1.0
    ).requires_grad_(requires_grad)


def randn(
    *sizes: Sizes,
    size: Sizes | None = None,
    generator: Generator | None = None,
    dtype: DTypeLike = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
    **ignored: object,
) -> Tensor:
    """Standard normal deviates, float32 of shape ``sizes``."""
    check_float(dtype, device)
    check_ignored(ignored)
    return _fill(
        empty(size_argument(sizes if size is None else (size,))), random_kernels.normal, generator, 0.0, 1.0
    ).requires_grad_(requires_grad)


def rand_like(
    input: Tensor,
    generator: Generator | None = None,
    *,
    dtype: DTypeLike = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
    **ignored: object,
) -> Tensor:
    """`rand` with the shape of another tensor."""
    check_ignored(ignored)
    return rand(input.sizes, generator=generator, dtype=dtype, device=device, requires_grad=requires_grad)


def randn_like(
    input: Tensor,
    generator: Generator | None = None,
    *,
    dtype: DTypeLike = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
    **ignored: object,
) -> Tensor:
    """`randn` with the shape of another tensor."""
    check_ignored(ignored)
    return randn(input.sizes, generator=generator, dtype=dtype, device=device, requires_grad=requires_grad)


def randint(
    low: int = 0,
    high: int | Sequence[int] | None = None,
    size: Sizes | None = None,
    *,
    generator: Generator | None = None,
    dtype: DTypeLike = None,
    device: DeviceLike = None,
) -> Tensor:
    """Integers from ``low`` to ``high - 1``, int64 unless ``dtype`` says otherwise; ``randint(high, size)`` starts at 0.

    Raises ValueError unless ``low < high``.
    """
    check_device(device)
    if size is None:
        size, high = high, None
    if high is None:
        high, low = low, 0
    if size is None:
        raise TypeError("randint needs a size: randint(high, size) or randint(low, high, size)")
    if not isinstance(low, (int, np.integer)) or not isinstance(high, (int, np.integer)):
        raise TypeError(f"randint draws between integers, got {low!r} and {high!r}")
    if high <= low:
        raise ValueError(f"randint needs low < high, got {low} and {high}")
    numbers = _fill(empty(size_argument((size,)), int64), random_kernels.integers, generator, low, high)  # type: ignore[arg-type]
    return numbers if dtype is None else numbers.to(as_dtype(dtype))


def randint_like(
    input: Tensor,
    low: int,
    high: int | None = None,
    *,
    generator: Generator | None = None,
    dtype: DTypeLike = None,
    device: DeviceLike = None,
) -> Tensor:
    """`randint` with the shape and dtype of another tensor; ``randint_like(input, high)`` starts at 0."""
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, input.sizes, generator=generator, dtype=dtype or input.dtype, device=device)


def randperm(n: int, *, generator: Generator | None = None, device: DeviceLike = None) -> Tensor:
    """The integers from 0 to ``n - 1`` in random order, int64 (n,). Raises ShapeError if ``n`` is negative."""
    check_device(device)
    return _fill(empty(size_argument((n,)), int64), random_kernels.permutation, generator)


def _require_float(x: Tensor, name: str) -> None:
    if x.dtype is not float32:
        raise DtypeError(f"{name} fills float32 tensors, got {x.dtype.name}")


def uniform_(x: Tensor, low: float = 0.0, high: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill a float32 tensor with uniform deviates on [low, high). Raises ValueError if ``low`` exceeds ``high``."""
    _require_float(x, "uniform_")
    if low > high:
        raise ValueError(f"uniform_ needs low <= high, got {low} and {high}")
    return x.copy_(_fill(empty(x.sizes), random_kernels.uniform, generator, low, high))


def _check_deviation(std: float) -> None:
    if not std >= 0:
        raise ValueError(f"a standard deviation must not be negative or NaN, got {std}")


def normal_(x: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill a float32 tensor with normal deviates. Raises ValueError if the standard deviation ``std`` is negative."""
    _require_float(x, "normal_")
    _check_deviation(std)
    return x.copy_(_fill(empty(x.sizes), random_kernels.normal, generator, mean, std))


def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """Ones with probability ``input``, or with probability ``p`` if given, and zeros; float32 in the shape of ``input``.

    Raises ValueError if a probability is not in [0, 1].
    """
    chances = as_float(input) if p is None else constant(real(p)).expand(input.sizes)
    input = chances.detach().contiguous()
    check_probabilities(input)
    return _fill(empty(input.sizes, bool_), random_kernels.bernoulli, generator, 1, source=input).to(float32)


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, generator: Generator | None = None) -> Tensor:
    """Indices drawn from each row with probabilities proportional to the weights ``input``, float32 (k,) or (n, k).

    The result is int64 (num_samples,) or (n, num_samples). Raises ShapeError if there are fewer than ``num_samples`` classes and
    ``replacement`` is false, and NumericalError if a weight is negative, infinite or NaN, or too few weights of a row are positive.
    """
    input = as_float(input).detach().contiguous()
    if input.dim() not in (1, 2) or input.sizes[-1] == 0:
        raise ShapeError(f"multinomial takes a vector or a matrix of weights, got shape {list(input.sizes)}")
    if num_samples < 1 or (num_samples > input.sizes[-1] and not replacement):
        raise ShapeError(f"multinomial cannot draw {num_samples} of {input.sizes[-1]} classes without replacement")
    out = empty((*input.sizes[:-1], num_samples), int64)
    state = _state(generator)
    kernel = random_kernels.categorical if replacement or num_samples == 1 else random_kernels.categorical_distinct
    launch_checked(kernel, (out, input, state), (math.prod(input.sizes[:-1]), input.sizes[-1], num_samples))
    state.storage.version += 1
    return out


def normal(
    mean: Tensor | float,
    std: Tensor | float = 1.0,
    size: Sequence[int] | None = None,
    *,
    generator: Generator | None = None,
    device: DeviceLike = None,
) -> Tensor:
    """Normal deviates of a mean and a standard deviation ``std``: tensors that broadcast, or numbers if ``size`` is given.

    Raises TypeError if neither is a tensor and ``size`` is missing, ShapeError if the tensors do not broadcast, ValueError if a
    standard deviation is negative or NaN.
    """
    check_device(device)
    if isinstance(std, Tensor):
        check_deviations(as_float(std))
    else:
        _check_deviation(std)
    if size is not None:
        return _fill(empty(size_argument((size,))), random_kernels.normal, generator, real(mean), real(std))
    shapes = [value.sizes for value in (mean, std) if isinstance(value, Tensor)]
    if not shapes:
        raise TypeError("normal needs a tensor or a size: normal(mean, std, size)")
    shape = broadcast_shape(*shapes)
    return randn(shape, generator=generator) * std + mean


def keep_mask(shape: tuple[int, ...], p: float, generator: Generator | None) -> Tensor:
    """A bool tensor; each element is False with probability ``p``."""
    return _fill(empty(shape, bool_), random_kernels.bernoulli, generator, 0, source=constant(1.0 - p))


def _check_dropout(p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"the probability of dropout must be in [0, 1], got {p}")


def _dropped(input: Tensor, shape: tuple[int, ...], p: float, inplace: bool, generator: Generator | None) -> Tensor:
    """Set elements to zero by a random mask of this shape, which broadcasts, and divide the others by ``1 - p``."""
    keep = keep_mask(shape, p, generator)
    factor = 1.0 / (1.0 - p) if p < 1.0 else 0.0
    if inplace:
        return write_in_place(input, lambda x: (x * factor).where(keep, constant(0.0)))
    return (input * factor).where(keep, constant(0.0))


def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """In training, set each element to zero with probability ``p`` and divide the others by ``1 - p`` (Srivastava et al. 2014).

    Raises ValueError if ``p`` is not in [0, 1].
    """
    _check_dropout(p)
    if not training or p == 0.0:
        return input
    return _dropped(input, input.sizes, p, inplace, generator)


def channel_dropout(
    input: Tensor, p: float, training: bool, inplace: bool, ranks: tuple[int, int], generator: Generator | None
) -> Tensor:
    """`dropout` of whole channels. ``ranks`` are the allowed numbers of dimensions, without and with a batch dimension."""
    _check_dropout(p)
    if input.dim() not in ranks:
        raise ShapeError(f"dropout of channels takes {ranks[0]} or {ranks[1]} dimensions, got shape {list(input.sizes)}")
    if not training or p == 0.0:
        return input
    lead = input.dim() - ranks[0] + 1
    return _dropped(input, (*input.sizes[:lead], *[1] * (input.dim() - lead)), p, inplace, generator)


ALPHA = 1.7580993408473766  # SELU tends to -ALPHA at -inf


def alpha_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    channels: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Dropout that keeps the mean and the variance of SELU outputs (Klambauer et al. 2017), of elements or of whole ``channels``.

    Raises ValueError if ``p`` is not in [0, 1].
    """
    _check_dropout(p)
    if not training or p == 0.0:
        return input
    if p == 1.0:
        return input.mul_(0.0) if inplace else input * 0.0
    shape = (*input.sizes[:2], *[1] * (input.dim() - 2)) if channels else input.sizes
    keep = keep_mask(shape, p, generator)
    scale = ((ALPHA * ALPHA * p + 1.0) * (1.0 - p)) ** -0.5

    def apply(x: Tensor) -> Tensor:
        return (x * scale).where(keep, constant(-ALPHA * scale)) + ALPHA * scale * p

    return write_in_place(input, apply) if inplace else apply(input)


def exponential_(x: Tensor, lambd: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill a float32 tensor with exponential deviates of rate ``lambd``. Raises ValueError unless the rate is positive."""
    _require_float(x, "exponential_")
    if lambd <= 0:
        raise ValueError(f"the rate must be positive, got {lambd}")
    return x.copy_(_fill(empty(x.sizes), random_kernels.exponential, generator, float(lambd)))


def bernoulli_(x: Tensor, p: Tensor | float = 0.5, generator: Generator | None = None) -> Tensor:
    """Fill a tensor with ones with probability ``p``, and zeros. Raises ValueError if a probability is not in [0, 1]."""
    chances = as_float(p).expand(x.sizes) if isinstance(p, Tensor) else constant(real(p)).expand(x.sizes)
    return x.copy_(bernoulli(chances, generator=generator))


def random_(x: Tensor, from_: int = 0, to: int | None = None, *, generator: Generator | None = None) -> Tensor:
    """Fill a tensor with integers from ``from_`` to ``to - 1``; ``random_(to)`` starts at 0.

    Without bounds, the largest value is the largest integer up to which the dtype represents all integers exactly.
    """
    if to is None:
        limits = {"float32": 2**24 + 1, "int64": 2**63 - 1, "uint8": 256, "bool": 2}
        to = from_ or limits[x.dtype.name]
        from_ = 0
    return x.copy_(randint(from_, to, x.sizes, generator=generator))


def log_normal_(x: Tensor, mean: float = 1.0, std: float = 2.0, generator: Generator | None = None) -> Tensor:
    """Fill a float32 tensor with the exponential function of normal deviates. Raises ValueError unless ``std`` is positive."""
    if not std > 0:
        raise ValueError(f"the standard deviation must be positive, got {std}")
    return x.copy_(_fill(empty(x.sizes), random_kernels.normal, generator, mean, std).exp())


def cauchy_(x: Tensor, median: float = 0.0, sigma: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill a float32 tensor with Cauchy deviates around ``median`` with the scale ``sigma``. Raises ValueError unless it is positive."""
    if not sigma > 0:
        raise ValueError(f"the scale must be positive, got {sigma}")
    return x.copy_(((rand(x.sizes, generator=generator) - 0.5) * math.pi).tan() * sigma + median)


def geometric_(x: Tensor, p: float, generator: Generator | None = None) -> Tensor:
    """Fill a tensor with numbers of trials until the first success, whose probability is ``p``. Raises ValueError unless 0 < p < 1."""
    if not 0 < p < 1:
        raise ValueError(f"the probability must be between 0 and 1, got {p}")
    return x.copy_(((-rand(x.sizes, generator=generator)).log1p() / math.log1p(-p)).ceil().clamp(min=1.0))


def seed() -> int:
    """Seed the default stream with entropy from the operating system; return the seed."""
    number = int(np.random.SeedSequence().entropy) % 2**63  # type: ignore[arg-type]
    default_generator.manual_seed(number)
    return number


def initial_seed() -> int:
    """The seed of the default stream."""
    refuse("it reads the seed of the default stream")
    return int(default_generator.seed_sequence.entropy)  # type: ignore[arg-type]


# These methods draw from streams, whose states are tensors. So this module stands after `rl_lab.engine.ops.methods`, and adds them itself.
_METHODS = (uniform_, normal_, exponential_, log_normal_, cauchy_, geometric_, random_, bernoulli_, bernoulli, multinomial)
hang({function.__name__: function for function in _METHODS})


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson deviates with the rates ``input``, in its shape, as float32; not differentiable.

    Raises ValueError if a rate is negative or NaN.
    """
    rates = as_float(input).detach().contiguous()
    check_deviations(rates)
    return _fill(empty(rates.sizes), random_kernels.poisson, generator, source=rates)


def standard_gamma(concentration: Tensor, generator: Generator | None = None) -> Tensor:
    """Gamma deviates of scale 1 in the shape of ``concentration``, whose elements must be positive.

    The gradient of ``concentration`` is implicit (Figurnov, Mohamed and Mnih 2018), and once differentiable, as in PyTorch.
    """
    source = as_float(concentration)
    with no_grad():
        shapes = source.contiguous()
    out = _fill(empty(shapes.sizes), random_kernels.gamma, generator, source=shapes)
    return attach(out, _gamma_rule, (source,), (source, out))


def _gamma_rule(g: Tensor, node: Node) -> Gradients:
    concentration, deviates = node.saved
    with no_grad():
        operands = [x.contiguous() for x in (g, concentration, deviates)]
        out = empty(deviates.sizes)
        launch(random_kernels.gamma_slope, (out, *operands), (out.numel(),))
    return (attach(out, _no_second_rule, (g, concentration)),)


def gamma_shares(concentration: Tensor, dim: int, generator: Generator | None = None) -> Tensor:
    """Gamma deviates of the shapes ``concentration``, divided by their sum along ``dim``: a sample of a Dirichlet distribution.

    Shares lie between the smallest normal number and 1 - 2^-24. Where the deviates are too small for a float32 the shares follow from
    their logarithms. The gradient is implicit, as that of `standard_gamma`.
    """
    source = as_float(concentration)
    with no_grad():
        shapes = source.contiguous()
        deviates, logs = empty(shapes.sizes), empty(shapes.sizes)
        state = _state(generator)
        launch(random_kernels.gamma_with_log, (deviates, logs, shapes, state), (deviates.numel(),))
        state.storage.version += 1
        total = deviates.sum(dim, keepdim=True)
        shares = where(total > 1e-30, deviates / total, softmax(logs, dim)).clamp(2.0**-126, 1.0 - 2.0**-24)
    return attach(shares, _shares_rule, (source,), (source, shares, logs), dim)


def _shares_rule(g: Tensor, node: Node) -> Gradients:
    concentration, shares, logs = node.saved
    with no_grad():
        slope = shares * (g - (g * shares).sum(node.context, keepdim=True))
        operands = [x.contiguous() for x in (slope, concentration, logs)]
        out = empty(logs.sizes)
        launch(random_kernels.log_gamma_slope, (out, *operands), (out.numel(),))
    return (attach(out, _no_second_rule, (g, concentration)),)


def _no_second_rule(g: Tensor, node: Node) -> Gradients:
    raise StateError("the gradient of a gamma deviate cannot be differentiated again")
