"""Layers for sequences of symbols: bags of embeddings, losses without alignment, and a softmax over very many classes."""

from collections.abc import Sequence as Numbers
from typing import NamedTuple

from rl_lab.engine.device import DeviceLike
from rl_lab.engine.dtype import DTypeLike
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.bags import check_unsupported, embedding_bag
from rl_lab.engine.ops.creation import empty
from rl_lab.engine.ops.ctc import Lengths, ctc_loss
from rl_lab.engine.ops.gathering import gather
from rl_lab.engine.ops.layout import cat
from rl_lab.engine.ops.reduction import log_softmax
from rl_lab.engine.random import Generator
from rl_lab.engine.tape import no_grad
from rl_lab.nn import init
from rl_lab.nn.containers import ModuleList, Sequential
from rl_lab.nn.layers import Linear
from rl_lab.nn.module import Module, Parameter


class EmbeddingBag(Module):
    """The sum, mean or maximum of the embeddings of each bag, see `functional.embedding_bag`.

    The rows of ``weight`` (num_embeddings, embedding_dim) start standard normal; row ``padding_idx`` starts at 0. Raises ValueError
    for ``max_norm``, ``scale_grad_by_freq`` and ``sparse``, which are not supported.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        *,
        generator: Generator | None = None,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        check_unsupported("EmbeddingBag", max_norm, scale_grad_by_freq, sparse)
        if mode not in ("sum", "mean", "max"):
            raise ValueError(f"EmbeddingBag: mode must be 'sum', 'mean' or 'max', got {mode!r}")
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.mode = mode
        self.include_last_offset = include_last_offset
        self.padding_idx = padding_idx
        if _weight is not None:
            if _weight.shape != (num_embeddings, embedding_dim):
                raise ShapeError(
                    f"EmbeddingBag needs a weight of shape {[num_embeddings, embedding_dim]}, got {list(_weight.shape)}"
                )
            self.weight = Parameter(_weight)
        else:
            self.weight = Parameter(empty((num_embeddings, embedding_dim)))
            init.start(self, generator)

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        *,
        mode: str = "mean",
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> "EmbeddingBag":
        """A bag over the table ``embeddings`` (count, size), which does not learn if ``freeze``."""
        if embeddings.dim() != 2:
            raise ShapeError(f"from_pretrained takes a table (count, size), got shape {list(embeddings.shape)}")
        count, size = embeddings.shape
        module = cls(
            count, size, mode=mode, _weight=embeddings, include_last_offset=include_last_offset, padding_idx=padding_idx
        )
        module.weight.requires_grad_(not freeze)
        return module

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw a new table."""
        init.normal_(self.weight, generator=generator)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0.0

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        return embedding_bag(
            input,
            self.weight,
            offsets,
            mode=self.mode,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=self.padding_idx,
        )

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, mode={self.mode!r}"


class CTCLoss(Module):
    """`functional.ctc_loss` as a module: the loss of target classes that are not aligned with the time steps (Graves et al. 2006)."""

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False):
        super().__init__()
        self.blank = blank
        self.reduction = reduction
        self.zero_infinity = zero_infinity

    def forward(self, log_probs: Tensor, targets: Tensor, input_lengths: Lengths, target_lengths: Lengths) -> Tensor:
        return ctc_loss(log_probs, targets, input_lengths, target_lengths, self.blank, self.reduction, self.zero_infinity)


class AdaptiveResult(NamedTuple):
    """Log-probabilities of the targets, and the mean of their negatives."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """A softmax over ``n_classes``, sorted by falling frequency, whose rare classes have fewer weights (Grave et al. 2017).

    ``cutoffs`` divide the classes. The first part and one class for each other part have full weights (the head). Part k has
    ``in_features / div_value^k`` hidden units. Unlike PyTorch's, a call computes every part for every row, so that its shapes do not
    depend on the targets and it can be recorded. Raises ValueError for cutoffs that do not rise from 1 to ``n_classes - 1``.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Numbers[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        *,
        generator: Generator | None = None,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        limits = list(cutoffs)
        if not limits or limits != sorted(set(limits)) or limits[0] < 1 or limits[-1] > n_classes - 1:
            raise ValueError(
                f"cutoffs must be different integers that rise from at least 1 to at most {n_classes - 1}, got {limits}"
            )
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*limits, n_classes]
        self.div_value = div_value
        self.shortlist_size = limits[0]
        self.n_clusters = len(limits)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, bias=head_bias, generator=generator)
        self.tail = ModuleList()
        for k, (low, high) in enumerate(zip(self.cutoffs, self.cutoffs[1:], strict=False)):
            hidden = int(in_features // div_value ** (k + 1))
            if hidden < 1:
                raise ValueError(
                    f"part {k + 1} would have {in_features} / {div_value}^{k + 1} hidden units, which is less than 1: lower div_value"
                )
            self.tail.append(
                Sequential(
                    Linear(in_features, hidden, bias=False, generator=generator),
                    Linear(hidden, high - low, bias=False, generator=generator),
                )
            )

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new weights."""
        for layer in self.modules():
            if isinstance(layer, Linear):
                layer.reset_parameters(generator)

    def log_prob(self, input: Tensor) -> Tensor:
        """The log-probabilities (n, n_classes) of rows (n, in_features)."""
        head = log_softmax(self.head(input), -1)
        size = self.shortlist_size
        parts = [head[..., :size]]
        for k, part in enumerate(self.tail):
            parts.append(log_softmax(part(input), -1) + head[..., size + k : size + k + 1])
        return cat(parts, -1)

    def forward(self, input: Tensor, target: Tensor) -> AdaptiveResult:
        """The log-probability (n,) of each target (n,) and the loss, for rows (n, in_features) or one row (in_features,).

        Raises IndexError for a target that is not a class, ShapeError if the shapes do not fit.
        """
        if input.dim() not in (1, 2) or target.shape != input.shape[:-1]:
            raise ShapeError(
                "AdaptiveLogSoftmaxWithLoss takes rows (n, in_features) and targets (n,), got shapes "
                f"{list(input.shape)} and {list(target.shape)}"
            )
        output = gather(self.log_prob(input), -1, target.unsqueeze(-1)).squeeze(-1)
        return AdaptiveResult(output, -output.mean())

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class of each row, int64 (n,)."""
        return self.log_prob(input).argmax(-1)
