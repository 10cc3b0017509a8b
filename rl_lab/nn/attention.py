"""Multi-head attention."""

from rl_lab.engine.device import DeviceLike
from rl_lab.engine.dtype import DTypeLike, bool_, float32
from rl_lab.engine.errors import ShapeError, StateError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.arithmetic import where
from rl_lab.engine.ops.creation import empty
from rl_lab.engine.ops.matmul import linear, matmul
from rl_lab.engine.ops.operands import constant
from rl_lab.engine.ops.reduction import softmax
from rl_lab.engine.random import Generator, dropout
from rl_lab.nn import init
from rl_lab.nn.layers import Linear
from rl_lab.nn.module import Module, Parameter


class MultiheadAttention(Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2).

    Queries are (length, n, embed_dim), keys (source, n, kdim) and values (source, n, vdim). With ``batch_first`` the batch dimension
    n comes first; a single sequence has no batch dimension. Raises ShapeError if ``num_heads`` does not divide ``embed_dim``.
    """

    in_proj_weight: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    in_proj_bias: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        generator: Generator | None = None,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        if num_heads < 1 or embed_dim % num_heads:
            raise ShapeError(f"embed_dim must be a multiple of num_heads, got {embed_dim} features and {num_heads} heads")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.kdim = kdim or embed_dim
        self.vdim = vdim or embed_dim
        self.together = self.kdim == self.vdim == embed_dim
        if self.together:
            self.in_proj_weight = Parameter(empty((3 * embed_dim, embed_dim)))
            for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
                self.register_parameter(name, None)
        else:
            self.q_proj_weight = Parameter(empty((embed_dim, embed_dim)))
            self.k_proj_weight = Parameter(empty((embed_dim, self.kdim)))
            self.v_proj_weight = Parameter(empty((embed_dim, self.vdim)))
            self.register_parameter("in_proj_weight", None)
        self.register_parameter("in_proj_bias", Parameter(empty((3 * embed_dim,))) if bias else None)
        self.out_proj = Linear(embed_dim, embed_dim, bias, generator=generator)
        self._reset_parameters(generator)

    def _reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new projections (Glorot and Bengio 2010) and set the biases to 0. The name is PyTorch's."""
        weights = (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        for weight in weights:
            if weight is not None:
                init.xavier_uniform_(weight, generator=generator)
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)

    def _heads(self, x: Tensor) -> Tensor:
        """Reshape (n, length, features) to (n, heads, length, features / heads)."""
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, self.embed_dim // self.num_heads).transpose(1, 2)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return (outputs, attention weights).

        The outputs have the shape of the queries. The weights are (n, length, source), the mean over the heads, or
        (n, heads, length, source) with ``average_attn_weights`` False, or None with ``need_weights`` False. Masks are bool, True
        where attention is forbidden, or float32, added to the scores: ``key_padding_mask`` (n, source), ``attn_mask``
        (length, source) or (n * heads, length, source). ``is_causal`` is a hint that ``attn_mask`` is causal, which changes nothing.
        Raises StateError for ``is_causal`` without ``attn_mask``, and ShapeError if ``attn_mask`` has another shape.
        """
        if is_causal and attn_mask is None:
            raise StateError(
                "is_causal must come with attn_mask: give the mask, such as Transformer.generate_square_subsequent_mask(length)"
            )
        single = query.dim() == 2
        inputs = [x.unsqueeze(0) if single else x if self.batch_first else x.transpose(0, 1) for x in (query, key, value)]
        weights = (
            self.in_proj_weight.chunk(3)
            if self.in_proj_weight is not None
            else (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        )
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        parts = zip(inputs, weights, biases, strict=True)
        q, k, v = (self._heads(linear(x, w, b)) for x, w, b in parts)  # type: ignore[arg-type]
        scores = matmul(q, k.transpose(-2, -1)) * q.shape[-1] ** -0.5
        if attn_mask is not None:
            n, heads, *plane = scores.shape
            if attn_mask.shape not in (tuple(plane), (n * heads, *plane)):
                raise ShapeError(
                    f"attn_mask must have shape {plane} (length, source) or {[n * heads, *plane]} (n * heads, length, source), "
                    f"got {list(attn_mask.shape)}"
                )
            mask = attn_mask if attn_mask.dim() == 2 else attn_mask.reshape(-1, self.num_heads, *attn_mask.shape[-2:])
            scores = self._masked(scores, mask)
        if key_padding_mask is not None:
            padding = key_padding_mask.unsqueeze(0) if single else key_padding_mask
            scores = self._masked(scores, padding.reshape(padding.shape[0], 1, 1, padding.shape[1]))
        attention = dropout(softmax(scores, -1), self.dropout, self.training)
        mixed = matmul(attention, v).transpose(1, 2)
        output = self.out_proj(mixed.reshape(*mixed.shape[:2], self.embed_dim))
        output = output.squeeze(0) if single else output if self.batch_first else output.transpose(0, 1)
        if not need_weights:
            return output, None
        shown = attention.mean(1) if average_attn_weights else attention
        return output, shown.squeeze(0) if single else shown

    @staticmethod
    def _masked(scores: Tensor, mask: Tensor) -> Tensor:
        """Apply a mask to the scores. A bool mask is True where attention is forbidden; a float32 mask is added."""
        if mask.dtype is bool_:
            return where(mask, constant(-float("inf")), scores)
        return scores + mask.to(float32)
