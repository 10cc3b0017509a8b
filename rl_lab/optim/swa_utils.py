"""Running averages of parameters, with the names of torch.optim.swa_utils."""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rl_lab.engine.dtype import float32, int64
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import tensor
from rl_lab.engine.tape import no_grad
from rl_lab.nn.module import Module
from rl_lab.nn.normalization import BatchNorm1d
from rl_lab.optim.lr_scheduler import LRScheduler
from rl_lab.optim.optimizer import Optimizer

Average = Callable[[Tensor, Tensor, Tensor], Tensor]
Averages = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None]


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """An ``avg_fn`` that moves each average by ``1 - decay`` towards the parameter. Raises ValueError unless 0 <= decay <= 1."""
    _check_decay(decay)

    def average(averaged: Tensor, current: Tensor, num_averaged: Tensor) -> Tensor:
        return decay * averaged + (1 - decay) * current

    return average


def get_ema_multi_avg_fn(decay: float = 0.999) -> Averages:
    """A ``multi_avg_fn`` that does what `get_ema_avg_fn` does. Raises ValueError unless 0 <= decay <= 1."""
    _check_decay(decay)

    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Tensor) -> None:
        for mean, value in zip(averaged, current, strict=True):
            mean.lerp_(value, 1 - decay)

    return average


def get_swa_avg_fn() -> Average:
    """An ``avg_fn`` that gives all models the same weight."""

    def average(averaged: Tensor, current: Tensor, num_averaged: Tensor) -> Tensor:
        return averaged + (current - averaged) / (num_averaged + 1)

    return average


def get_swa_multi_avg_fn() -> Averages:
    """A ``multi_avg_fn`` that gives all models the same weight."""

    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Tensor) -> None:
        for mean, value in zip(averaged, current, strict=True):
            mean.add_((value - mean) / (num_averaged + 1))

    return average


def _check_decay(decay: float) -> None:
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"decay must be in [0, 1], got {decay}")


class AveragedModel(Module):
    """A copy of a model, ``module``, whose parameters are averages of those that `update_parameters` was given.

    The first call copies them. Later calls weight all models equally, unless ``avg_fn`` or ``multi_avg_fn`` says otherwise (see
    `get_ema_avg_fn`). ``use_buffers`` averages buffers as well; without it they are copied. ``n_averaged`` counts the calls. Raises
    ValueError for both functions.
    """

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: object = None,
        avg_fn: Average | None = None,
        multi_avg_fn: Averages | None = None,
        use_buffers: bool = False,
    ):
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ValueError("give avg_fn or multi_avg_fn, not both")
        self.module = copy.deepcopy(model)
        self.register_buffer("n_averaged", tensor(0, dtype=int64))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def _averaged(self, model: Module) -> list[Tensor]:
        buffers = list(model.buffers()) if self.use_buffers else []
        return [*model.parameters(), *buffers]

    @no_grad()
    def update_parameters(self, model: Module) -> None:
        """Add the parameters of ``model``, which has those of the averaged model, to the averages."""
        own, new = self._averaged(self.module), self._averaged(model)
        real = [(mean, value) for mean, value in zip(own, new, strict=True) if mean.dtype is float32]
        others = [pair for pair in zip(own, new, strict=True) if pair[0].dtype is not float32]
        if not self.use_buffers:
            others += zip(self.module.buffers(), model.buffers(), strict=True)
        means, values = [mean for mean, _ in real], [value for _, value in real]
        if int(self.n_averaged) == 0:
            others += real
        elif self.multi_avg_fn is not None or self.avg_fn is None:
            (self.multi_avg_fn or get_swa_multi_avg_fn())(means, values, self.n_averaged)
        else:
            for mean, value in real:
                mean.copy_(self.avg_fn(mean, value, self.n_averaged))
        for mean, value in others:
            mean.copy_(value)
        self.n_averaged.add_(1)


@no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: object = None) -> None:
    """Compute the running means and variances of batch normalisation anew, as averages over the batches of ``loader``.

    Of a batch that is a list or a tuple, the model takes the first entry.
    """
    norms = [module for module in model.modules() if isinstance(module, BatchNorm1d)]
    if not norms:
        return
    training, momenta = model.training, [norm.momentum for norm in norms]
    model.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    for batch in loader:
        model(batch[0] if isinstance(batch, (list, tuple)) else batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(training)


class SWALR(LRScheduler):
    """Move the learning rate of each group to ``swa_lr`` in ``anneal_epochs`` steps, along a cosine ("cos") or a line ("linear").

    Raises ValueError for another strategy, a negative number of steps, or as many rates as there are no groups.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | Sequence[float],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ):
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must not be negative, got {anneal_epochs}")
        count = len(optimizer.param_groups)
        rates = [float(swa_lr)] * count if isinstance(swa_lr, (int, float)) else list(swa_lr)
        if len(rates) != count:
            raise ValueError(f"swa_lr needs one rate for each of {count} groups, got {len(rates)}")
        self.swa_lrs = rates
        self.anneal_epochs = anneal_epochs
        self.anneal_strategy = anneal_strategy
        super().__init__(optimizer, last_epoch)

    def _share(self, step: int) -> float:
        """The part of the way to ``swa_lr`` after so many steps."""
        part = max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        return (1.0 - math.cos(math.pi * part)) / 2.0 if self.anneal_strategy == "cos" else part

    def get_lr(self) -> list[float]:
        step = self.last_epoch if self.anneal_epochs else max(1, self.last_epoch)
        before, now = self._share(step - 1), self._share(step)
        rates = []
        for rate, goal in zip(self._rates, self.swa_lrs, strict=True):
            start = goal if before == 1.0 else (rate - before * goal) / (1.0 - before)
            rates.append(goal * now + start * (1.0 - now))
        return rates
