"""Modules and schedules, built and run in either library: ``t`` is rl_lab in the tests, and torch where the answers are recorded."""

from collections.abc import Callable
from typing import Any

import numpy as np

# --- modules ---------------------------------------------------------------------------------------------------------


def adaptive_softmax(nn: Any) -> Any:
    """A module that returns the log-probabilities, and the log-probabilities and the loss of targets that follow from the input."""

    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.softmax = nn.AdaptiveLogSoftmaxWithLoss(6, 12, [3, 7], div_value=2.0, head_bias=True)

        def forward(self, x: Any) -> Any:
            targets = (x.detach().sum(1) * 7.0).long() % 12
            return self.softmax.log_prob(x), *self.softmax(x, targets)

    Scored.__qualname__ = "Scored"
    globals()["Scored"] = Scored  # where pickle looks for it
    return Scored()


MODULES: dict[str, tuple[Callable, list[tuple[int, ...]]]] = {
    "Linear": (lambda nn: nn.Linear(3, 2), [(4, 3)]),
    "Bilinear": (lambda nn: nn.Bilinear(3, 2, 4), [(5, 3), (5, 2)]),
    "Conv1d": (lambda nn: nn.Conv1d(2, 3, 3, padding=1), [(2, 2, 6)]),
    "Conv2d": (lambda nn: nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), [(3, 2, 5, 6)]),
    "ConvTranspose2d": (lambda nn: nn.ConvTranspose2d(2, 3, 3, stride=2), [(2, 2, 3, 3)]),
    "MaxPool2d": (lambda nn: nn.MaxPool2d(3, 2, 1, ceil_mode=True), [(2, 2, 6, 5)]),
    "AvgPool2d": (lambda nn: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), [(2, 2, 6, 5)]),
    "MaxPool1d": (lambda nn: nn.MaxPool1d(3, 2), [(2, 2, 7)]),
    "AvgPool1d": (lambda nn: nn.AvgPool1d(3, 2, 1), [(2, 2, 7)]),
    "AdaptiveAvgPool2d": (lambda nn: nn.AdaptiveAvgPool2d(1), [(2, 2, 3, 4)]),
    "LayerNorm": (lambda nn: nn.LayerNorm((2, 5)), [(3, 2, 5)]),
    "RMSNorm": (lambda nn: nn.RMSNorm(5), [(3, 5)]),
    "GroupNorm": (lambda nn: nn.GroupNorm(2, 4), [(2, 4, 3)]),
    "BatchNorm1d": (lambda nn: nn.BatchNorm1d(3), [(6, 3)]),
    "BatchNorm1d averaged": (lambda nn: nn.BatchNorm1d(3, momentum=None), [(6, 3, 2)]),
    "BatchNorm1d eval": (lambda nn: nn.BatchNorm1d(3).eval(), [(6, 3)]),
    "BatchNorm2d": (lambda nn: nn.BatchNorm2d(3, affine=False), [(2, 3, 2, 4)]),
    "RNNCell": (lambda nn: nn.RNNCell(3, 4), [(2, 3), (2, 4)]),
    "GRUCell": (lambda nn: nn.GRUCell(3, 4), [(2, 3), (2, 4)]),
    "GRUCell alone": (lambda nn: nn.GRUCell(3, 4, bias=False), [(3,)]),
    "LSTMCell": (lambda nn: nn.LSTMCell(3, 4), [(2, 3)]),
    "RNN": (lambda nn: nn.RNN(3, 4, nonlinearity="relu"), [(5, 2, 3)]),
    "GRU": (lambda nn: nn.GRU(3, 4, num_layers=2, batch_first=True), [(2, 5, 3)]),
    "GRU state": (lambda nn: nn.GRU(3, 4), [(5, 2, 3), (1, 2, 4)]),
    "LSTM": (lambda nn: nn.LSTM(3, 4, num_layers=2, bidirectional=True), [(4, 2, 3)]),
    "LSTM alone": (lambda nn: nn.LSTM(3, 4), [(4, 3)]),
    "MultiheadAttention": (lambda nn: nn.MultiheadAttention(4, 2, batch_first=True), [(2, 3, 4), (2, 5, 4), (2, 5, 4)]),
    "MultiheadAttention sizes": (lambda nn: nn.MultiheadAttention(4, 2, kdim=3, vdim=5, bias=False), [(3, 2, 4), (5, 2, 3), (5, 2, 5)]),
    "AdaptiveLogSoftmaxWithLoss": (adaptive_softmax, [(5, 6)]),
    "ConvTranspose1d": (lambda nn: nn.ConvTranspose1d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2), [(2, 2, 5)]),
    "Upsample": (lambda nn: nn.Upsample(scale_factor=2), [(2, 2, 3, 4)]),
    "Upsample bilinear": (lambda nn: nn.Upsample(size=(5, 3), mode="bilinear"), [(2, 2, 3, 4)]),
    "Upsample linear": (lambda nn: nn.Upsample(scale_factor=1.7, mode="linear", align_corners=True), [(2, 2, 5)]),
    "UpsamplingNearest2d": (lambda nn: nn.UpsamplingNearest2d(scale_factor=2), [(2, 2, 3, 4)]),
    "UpsamplingBilinear2d": (lambda nn: nn.UpsamplingBilinear2d(size=(5, 6)), [(2, 2, 3, 4)]),
    "InstanceNorm1d": (lambda nn: nn.InstanceNorm1d(3, affine=True), [(2, 3, 5)]),
    "InstanceNorm2d": (lambda nn: nn.InstanceNorm2d(3), [(2, 3, 2, 4)]),
    "InstanceNorm2d alone": (lambda nn: nn.InstanceNorm2d(3), [(3, 2, 4)]),
    "InstanceNorm2d tracked": (lambda nn: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), [(2, 3, 2, 4)]),
    "InstanceNorm3d": (lambda nn: nn.InstanceNorm3d(2), [(2, 2, 2, 2, 3)]),
    "BatchNorm3d": (lambda nn: nn.BatchNorm3d(2), [(2, 2, 2, 2, 3)]),
    "ReflectionPad2d": (lambda nn: nn.ReflectionPad2d((1, 0, 0, 2)), [(2, 2, 3, 4)]),
    "ReflectionPad1d": (lambda nn: nn.ReflectionPad1d(2), [(2, 2, 4)]),
    "ReplicationPad2d": (lambda nn: nn.ReplicationPad2d((3, 1, 0, 2)), [(2, 2, 3, 4)]),
    "ReplicationPad3d": (lambda nn: nn.ReplicationPad3d(1), [(1, 2, 2, 3, 2)]),
    "CircularPad1d": (lambda nn: nn.CircularPad1d((2, 1)), [(2, 2, 4)]),
    "CircularPad2d": (lambda nn: nn.CircularPad2d((1, 2, 2, 1)), [(2, 2, 3, 4)]),
    "ConstantPad2d": (lambda nn: nn.ConstantPad2d((1, -1, 0, 2), 0.5), [(2, 2, 3, 4)]),
    "ZeroPad2d": (lambda nn: nn.ZeroPad2d(1), [(2, 2, 3, 4)]),
    "PixelShuffle": (lambda nn: nn.PixelShuffle(2), [(2, 8, 2, 3)]),
    "PixelUnshuffle": (lambda nn: nn.PixelUnshuffle(2), [(2, 2, 4, 6)]),
    "ChannelShuffle": (lambda nn: nn.ChannelShuffle(2), [(2, 6, 2, 3)]),
    "LocalResponseNorm": (lambda nn: nn.LocalResponseNorm(3, 0.5, 0.7, 1.3), [(2, 5, 2, 3)]),
    "AdaptiveAvgPool1d": (lambda nn: nn.AdaptiveAvgPool1d(3), [(2, 2, 7)]),
    "AdaptiveMaxPool1d": (lambda nn: nn.AdaptiveMaxPool1d(3), [(2, 2, 7)]),
    "AdaptiveMaxPool2d": (lambda nn: nn.AdaptiveMaxPool2d((3, 2)), [(2, 2, 5, 7)]),
    "LPPool1d": (lambda nn: nn.LPPool1d(2, 3, 2), [(2, 2, 8)]),
    "LPPool2d": (lambda nn: nn.LPPool2d(2, 2), [(2, 2, 4, 6)]),
    "Fold": (lambda nn: nn.Fold((4, 5), (2, 2)), [(2, 8, 12)]),
    "Unfold": (lambda nn: nn.Unfold((2, 3), stride=2), [(2, 2, 4, 5)]),
    "Softmax2d": (lambda nn: nn.Softmax2d(), [(2, 3, 2, 2)]),
    "RReLU eval": (lambda nn: nn.RReLU().eval(), [(2, 3)]),
    "CosineSimilarity": (lambda nn: nn.CosineSimilarity(), [(4, 3), (4, 3)]),
    "PairwiseDistance": (lambda nn: nn.PairwiseDistance(3.0, keepdim=True), [(4, 3), (4, 3)]),
    "TripletMarginLoss": (lambda nn: nn.TripletMarginLoss(swap=True), [(4, 3), (4, 3), (4, 3)]),
    "MultiLabelSoftMarginLoss": (lambda nn: nn.MultiLabelSoftMarginLoss(), [(4, 3), (4, 3)]),
    "Conv3d": (lambda nn: nn.Conv3d(2, 4, (2, 3, 2), stride=(1, 2, 1), padding=1, dilation=(2, 1, 1), groups=2), [(2, 2, 4, 5, 3)]),
    "Conv3d same": (lambda nn: nn.Conv3d(1, 2, (3, 2, 2), padding="same"), [(1, 3, 3, 3)]),
    "ConvTranspose3d": (lambda nn: nn.ConvTranspose3d(2, 4, (3, 2, 3), (2, 1, 2), 1, (1, 0, 1), 2), [(2, 2, 2, 3, 3)]),
    "AvgPool3d": (lambda nn: nn.AvgPool3d((2, 3, 2), 2, 1, ceil_mode=True, count_include_pad=False), [(2, 2, 5, 4, 4)]),
    "AvgPool3d divisor": (lambda nn: nn.AvgPool3d(2, divisor_override=3), [(2, 4, 4, 4)]),
    "MaxPool3d": (lambda nn: nn.MaxPool3d((3, 2, 2), 2, 1, ceil_mode=True), [(2, 2, 5, 4, 4)]),
    "MaxPool3d dilation": (lambda nn: nn.MaxPool3d(2, 1, dilation=(2, 1, 1)), [(2, 4, 3, 3)]),
    "AdaptiveAvgPool3d": (lambda nn: nn.AdaptiveAvgPool3d((2, 3, None)), [(2, 2, 5, 4, 3)]),
    "AdaptiveMaxPool3d": (lambda nn: nn.AdaptiveMaxPool3d((2, 3, 1)), [(2, 2, 5, 4, 3)]),
    "LPPool3d": (lambda nn: nn.LPPool3d(2, 2, 1), [(2, 2, 3, 4, 3)]),
    "MultiLabelSoftMarginLoss sum": (lambda nn: nn.MultiLabelSoftMarginLoss(reduction="sum"), [(4, 3), (4, 3)]),
    "TripletMarginWithDistanceLoss": (lambda nn: nn.TripletMarginWithDistanceLoss(margin=2.0, swap=True), [(4, 3), (4, 3), (4, 3)]),
    "TransformerEncoderLayer": (lambda nn: nn.TransformerEncoderLayer(4, 2, 5, dropout=0.0), [(3, 2, 4)]),
    "TransformerEncoderLayer first": (
        lambda nn: nn.TransformerEncoderLayer(4, 2, 5, 0.0, "gelu", batch_first=True, norm_first=True, bias=False), [(2, 3, 4)]
    ),
    "TransformerDecoderLayer": (lambda nn: nn.TransformerDecoderLayer(4, 2, 5, 0.0), [(3, 2, 4), (5, 2, 4)]),
    "TransformerEncoder": (
        lambda nn: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 1, 3, 0.0), 2, nn.LayerNorm(4), enable_nested_tensor=False),
        [(3, 2, 4)],
    ),
    "TransformerDecoder": (lambda nn: nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 1, 3, 0.0), 2), [(3, 2, 4), (2, 2, 4)]),
    "Transformer": (lambda nn: nn.Transformer(4, 2, 2, 1, 5, 0.0, batch_first=True), [(2, 3, 4), (2, 5, 4)]),
    "weight_norm": (lambda nn: nn.utils.weight_norm(nn.Linear(3, 2)), [(4, 3)]),
    "weight_norm dim": (lambda nn: nn.utils.weight_norm(nn.Conv1d(2, 3, 2), dim=1), [(2, 2, 5)]),
    "weight_norm whole": (lambda nn: nn.utils.weight_norm(nn.Linear(3, 2), dim=None), [(4, 3)]),
    "spectral_norm": (lambda nn: nn.utils.spectral_norm(nn.Linear(3, 2)), [(4, 3)]),
    "spectral_norm transposed": (
        lambda nn: nn.utils.spectral_norm(nn.ConvTranspose2d(2, 3, 2), n_power_iterations=2, dim=1), [(2, 2, 3, 3)]
    ),
    "spectral_norm eval": (lambda nn: nn.utils.spectral_norm(nn.Conv2d(2, 3, 2)).eval(), [(2, 2, 3, 3)]),
    "parametrizations.weight_norm": (lambda nn: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), [(4, 3)]),
    "parametrizations.weight_norm whole": (
        lambda nn: nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 3, 2), dim=None), [(2, 2, 5)]
    ),
    "parametrizations.spectral_norm": (lambda nn: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)), [(4, 3)]),
    "parametrizations.spectral_norm transposed": (
        lambda nn: nn.utils.parametrizations.spectral_norm(nn.ConvTranspose2d(2, 3, 2), n_power_iterations=2), [(2, 2, 3, 3)]
    ),
    "parametrizations.spectral_norm eval": (
        lambda nn: nn.utils.parametrizations.spectral_norm(nn.Conv2d(2, 3, 2)).eval(), [(2, 2, 3, 3)]
    ),
    "Dropout2d eval": (lambda nn: nn.Dropout2d().eval(), [(2, 3, 2, 2)]),
    "AlphaDropout eval": (lambda nn: nn.AlphaDropout().eval(), [(2, 3)]),
    "PReLU": (lambda nn: nn.PReLU(3), [(2, 3)]),
    "Sequential": (lambda nn: nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh(), nn.LayerNorm(4)), [(2, 2, 3)]),
    "MSELoss": (lambda nn: nn.MSELoss(reduction="sum"), [(2, 3), (2, 3)]),
    "L1Loss": (lambda nn: nn.L1Loss(), [(2, 3), (2, 3)]),
    "SmoothL1Loss": (lambda nn: nn.SmoothL1Loss(beta=0.5), [(2, 3), (2, 3)]),
    "HuberLoss": (lambda nn: nn.HuberLoss(delta=0.5), [(2, 3), (2, 3)]),
    "CrossEntropyLoss": (lambda nn: nn.CrossEntropyLoss(label_smoothing=0.1), [(2, 3), (2, 3)]),
    "BCEWithLogitsLoss": (lambda nn: nn.BCEWithLogitsLoss(), [(2, 3), (2, 3)]),
    "KLDivLoss": (lambda nn: nn.KLDivLoss(reduction="batchmean", log_target=True), [(2, 3), (2, 3)]),
    "PoissonNLLLoss": (lambda nn: nn.PoissonNLLLoss(), [(2, 3), (2, 3)]),
    **{
        name: (lambda nn, n=name, a=arguments: getattr(nn, n)(*a), [(3, 4)])
        for name, arguments in {
            "ReLU": (), "ReLU6": (), "Tanh": (), "Sigmoid": (), "SiLU": (), "Mish": (), "SELU": (), "Softsign": (),
            "LogSigmoid": (), "Tanhshrink": (), "Hardsigmoid": (), "Hardswish": (), "ELU": (0.5,), "CELU": (0.5,),
            "GELU": ("tanh",), "LeakyReLU": (0.2,), "Hardtanh": (-0.5, 0.7), "Softplus": (2.0,), "Hardshrink": (0.3,),
            "Softshrink": (0.3,), "Threshold": (0.1, 0.2), "GLU": (1,), "Softmax": (0,), "Softmin": (1,), "LogSoftmax": (1,),
            "Identity": (), "Unflatten": (1, (2, 2)),
        }.items()
    },
}  # fmt: skip


def tensors_in(value: Any) -> list[Any]:
    """The tensors of a result, which may be a nested tuple."""
    return [value] if hasattr(value, "shape") else [tensor for part in value for tensor in tensors_in(part)]


def prepared(t: Any, name: str) -> tuple[Any, list[Any]]:
    """A module of library ``t`` with its inputs. Every entry of its state has seeded values."""
    build, shapes = MODULES[name]
    module = build(t.nn)
    generator = np.random.default_rng(len(name))
    values = {}
    for key, tensor in module.state_dict().items():
        array = generator.uniform(-1, 1, tuple(tensor.shape)).astype(np.float32)
        values[key] = t.tensor(abs(array) + 0.5) if key.endswith("running_var") else t.tensor(array)
        if key.endswith("num_batches_tracked"):
            values[key] = t.tensor(3)
    module.load_state_dict(values)
    return module, [t.tensor(generator.uniform(-1, 1, shape).astype(np.float32), requires_grad=True) for shape in shapes]


def of_module(t: Any, name: str) -> list[Any]:
    """Outputs, gradients of inputs and parameters, and buffers after the call, as tensors of library ``t``."""
    module, inputs = prepared(t, name)
    outputs = tensors_in(module(*inputs))
    generator = np.random.default_rng(1)
    total: Any = 0.0
    for output in outputs:
        total = total + (output * t.tensor(generator.uniform(0.5, 1.5, tuple(output.shape)).astype(np.float32))).sum()
    total.backward()
    return [*outputs, *[x.grad for x in inputs], *[p.grad for p in module.parameters()], *module.buffers()]


# --- schedules -------------------------------------------------------------------------------------------------------

SCHEDULES: dict[str, Callable] = {
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda step: 0.9**step),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, lambda step: 0.95),
    "LinearLR": lambda s, o: s.LinearLR(o, 0.5, 0.1, 7),
    "StepLR": lambda s, o: s.StepLR(o, 4, 0.5),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [3, 3, 9], 0.5),
    "ConstantLR": lambda s, o: s.ConstantLR(o, 0.5, 4),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, 9, 2.0),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 7, 0.01),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2, 0.01),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, 0.3, total_steps=21),
    "OneCycleLR three": lambda s, o: s.OneCycleLR(
        o, 0.3, epochs=3, steps_per_epoch=7, three_phase=True, anneal_strategy="linear"
    ),
    "ChainedScheduler": lambda s, o: s.ChainedScheduler(
        [s.ConstantLR(o, 0.5, 4), s.ExponentialLR(o, 0.9), s.StepLR(o, 5, 0.5)]
    ),
    "CyclicLR": lambda s, o: s.CyclicLR(o, 0.01, 0.2, 3, 5),
    "CyclicLR halved": lambda s, o: s.CyclicLR(o, 0.01, 0.2, 2, mode="triangular2", cycle_momentum=False),
    "CyclicLR exp": lambda s, o: s.CyclicLR(o, 0.01, 0.2, 3, mode="exp_range", gamma=0.9, base_momentum=0.5, max_momentum=0.7),
    "CyclicLR function": lambda s, o: s.CyclicLR(o, 0.01, 0.2, 3, scale_fn=lambda x: 1 / x),
    "ReduceLROnPlateau": lambda s, o: s.ReduceLROnPlateau(o, factor=0.5, patience=1),
    "ReduceLROnPlateau max": lambda s, o: s.ReduceLROnPlateau(o, "max", 0.3, 2, 0.05, "abs", cooldown=1, min_lr=0.002),
    "ReduceLROnPlateau rel": lambda s, o: s.ReduceLROnPlateau(o, "max", 0.3, 0, threshold=0.2, eps=0.01),
    "SequentialLR": lambda s, o: s.SequentialLR(o, [s.LinearLR(o, 0.1, total_iters=5), s.CosineAnnealingLR(o, 10)], [5]),
}


METRICS = [3.0, 2.0, 2.0, 2.5, 2.1, 1.0, 1.5, 1.4, 1.3, 1.0, 1.05, 0.99, 0.98, 1.2, 1.3, 0.2, 0.2, 0.21, 0.3, 0.1]


def scheduled(t: Any, name: str) -> np.ndarray:
    """The parameter, the rate and the momentum after each of 20 steps of SGD with momentum under a schedule."""
    parameter = t.nn.Parameter(t.tensor([1.0, -2.0]))
    optimizer = t.optim.SGD([parameter], lr=0.1, momentum=0.9)
    schedule = SCHEDULES[name](t.optim.lr_scheduler, optimizer)
    rows = []
    for step in range(20):
        optimizer.zero_grad()
        parameter.square().sum().backward()
        optimizer.step()
        schedule.step(*([METRICS[step]] if name.startswith("ReduceLROnPlateau") else []))
        group = optimizer.param_groups[0]
        rows.append([*parameter.tolist(), schedule.get_last_lr()[0], group["momentum"]])
    return np.array(rows, np.float64)
