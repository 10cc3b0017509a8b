"""Further optimisers with PyTorch's names, defaults and formulas. A step is one launch per parameter group, as of the others."""

from typing import Any

from rl_lab.engine.kernels import optimizer as optimizer_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.ops import Tensor
from rl_lab.optim.optimizer import Group, Moments, Optimizer, Params, _ignore, _require


class NAdam(Moments):
    """NAdam: Adam with Nesterov's momentum (Dozat 2016, algorithm 1).

    The momentum of step t is betas[0] * (1 - 0.96^(t * momentum_decay) / 2). ``decoupled_weight_decay`` subtracts
    lr * weight_decay * p instead of adding weight_decay * p to the gradient.
    """

    kernel = optimizer_kernels.nadam
    slots = ("exp_avg", "exp_avg_sq", "mu_product")
    scalars = ("mu_product",)
    arguments = ("eps", "weight_decay", "momentum_decay", "decoupled_weight_decay", "maximize")

    def __init__(
        self,
        params: Params,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        **ignored: object,
    ):
        _ignore(ignored)
        settings = {"betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay}
        settings |= {"decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize}
        super().__init__(params, {"lr": lr, **settings})

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        _require("momentum_decay", group["momentum_decay"], 0.0)

    def first_value_of(self, name: str, group: Group) -> float:
        return 1.0 if name == "mu_product" else 0.0

    def _before(self, table: Tensor, count: int, group: Group) -> None:
        launch(optimizer_kernels.nadam_product, (table,), (count, group["betas"][0], group["momentum_decay"]))


class RAdam(Moments):
    """RAdam: Adam with a rectified second moment (Liu et al. 2020, algorithm 2).

    ``decoupled_weight_decay`` subtracts lr * weight_decay * p instead of adding weight_decay * p to the gradient.
    """

    kernel = optimizer_kernels.radam
    slots = ("exp_avg", "exp_avg_sq")
    arguments = ("eps", "weight_decay", "decoupled_weight_decay", "maximize")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        **ignored: object,
    ):
        _ignore(ignored)
        settings = {"betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        settings |= {"decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize}
        super().__init__(params, {"lr": lr, **settings})


class Adamax(Moments):
    """Adamax: Adam with the decayed largest magnitude in place of the second moment (Kingma and Ba 2015, algorithm 2)."""

    kernel = optimizer_kernels.adamax
    slots = ("exp_avg", "exp_inf")
    arguments = ("eps", "weight_decay", "maximize")

    def __init__(
        self,
        params: Params,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **ignored: object,
    ):
        _ignore(ignored)
        settings = {"betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, {"lr": lr, **settings})


class Adadelta(Optimizer):
    """Adadelta: steps scaled by the ratio of the root mean squares of changes and gradients (Zeiler 2012, algorithm 1)."""

    kernel = optimizer_kernels.adadelta
    slots = ("square_avg", "acc_delta")
    arguments = ("rho", "eps", "weight_decay", "maximize")

    def __init__(
        self,
        params: Params,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **ignored: object,
    ):
        _ignore(ignored)
        settings = {"rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, {"lr": lr, **settings})

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        _require("eps", group["eps"], 0.0)
        if not 0.0 <= group["rho"] <= 1.0:
            raise ValueError(f"rho must be in [0, 1], got {group['rho']}")


class Rprop(Optimizer):
    """Rprop: step sizes that grow while a gradient keeps its sign and shrink when it changes (Riedmiller and Braun 1993).

    ``etas`` are the factors of shrinking and growing, ``step_sizes`` the smallest and the largest step. The first step is ``lr``.
    """

    kernel = optimizer_kernels.rprop
    slots = ("prev", "step_size")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        *,
        maximize: bool = False,
        **ignored: object,
    ):
        _ignore(ignored)
        super().__init__(params, {"lr": lr, "etas": tuple(etas), "step_sizes": tuple(step_sizes), "maximize": maximize})

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        if not 0.0 < group["etas"][0] < 1.0 < group["etas"][1]:
            raise ValueError(f"etas must be below and above 1, got {group['etas']}")

    def first_value_of(self, name: str, group: Group) -> float:
        return float(group["lr"]) if name == "step_size" else 0.0

    def numbers(self, group: Group) -> tuple[float, ...]:
        return (*group["etas"], *group["step_sizes"], group["maximize"])


class ASGD(Optimizer):
    """Averaged stochastic gradient descent (Polyak and Juditsky 1992): ``state[p]["ax"]`` is the average of the parameter.

    The rate of step t is lr / (1 + lambd * lr * t)^alpha. The average begins after ``t0`` steps and follows the parameter until then.
    """

    kernel = optimizer_kernels.asgd
    slots = ("ax", "eta", "mu")
    scalars = ("eta", "mu")
    arguments = ("lambd", "weight_decay", "maximize")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **ignored: object,
    ):
        _ignore(ignored)
        settings = {"lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, {"lr": lr, **settings})

    def first_value_of(self, name: str, group: Group) -> float:
        return {"ax": 0.0, "eta": float(group["lr"]), "mu": 1.0}[name]

    def _after(self, table: Tensor, count: int, group: Group) -> None:
        launch(optimizer_kernels.asgd_rates, (table, group.rate), (count, group["lambd"], group["alpha"], group["t0"]))
