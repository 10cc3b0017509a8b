"""Names beside the tensors that PyTorch scripts use: mixed precision, special functions, TensorBoard, processes, averaged models."""

import numpy as np
import pytest

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab import amp, nn, special
from rl_lab import multiprocessing as mp
from rl_lab.cuda.amp import autocast as cuda_autocast
from rl_lab.errors import DtypeError, ShapeError
from rl_lab.optim import swa_utils
from rl_lab.utils.data import DataLoader, TensorDataset


def test_a_step_with_mixed_precision_is_the_step_without():
    def trained(mixed):
        layer = nn.Linear(3, 2, generator=rl.Generator(1))
        optimizer = rl.optim.SGD(layer.parameters(), lr=0.1)
        scaler = amp.GradScaler("cuda")
        for _ in range(3):
            optimizer.zero_grad()
            with rl.autocast("cuda", dtype=rl.float16) if mixed else rl.enable_grad(), cuda_autocast():
                loss = F.mse_loss(layer(rl.ones(4, 3)), rl.ones(4, 2))
            if mixed:
                scaler.scale(loss).backward()
                scaler.unscale_(optimizer)
                scaler.step(optimizer)
                scaler.update()
            else:
                loss.backward()
                optimizer.step()
        return layer.weight.tolist()

    assert trained(True) == trained(False)
    assert not amp.GradScaler().is_enabled()
    assert cuda_autocast(False)(len) is len


def test_lower_precision_on_the_cpu_is_refused():
    with rl.autocast("cpu", enabled=False), rl.autocast("cpu", dtype=rl.float32):
        pass
    for dtype in (None, rl.bfloat16):
        with pytest.raises(DtypeError, match=r"float32|bfloat16"):
            rl.autocast("cpu", dtype=dtype)


def test_special_functions_are_those_of_the_tensors():
    x = rl.tensor([0.2, 0.7])
    for name in special.__all__:
        function = getattr(special, name)
        if name not in ("softmax", "log_softmax", "logsumexp", "xlogy", "polygamma", "multigammaln", "logit"):
            assert function(x).isfinite().all(), name
    assert special.expit(x).equal(x.sigmoid())
    assert special.gammaln(x).equal(x.lgamma())
    assert special.psi(x).equal(x.digamma())
    assert special.multigammaln(x + 3.0, 2).equal((x + 3.0).mvlgamma(2))
    with pytest.raises(AttributeError, match=r"does not cover torch.special.i0"):
        _ = special.i0


def test_a_writer_under_the_name_of_pytorch(tmp_path):
    from rl_lab.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("loss", 1.0, 0)
    assert list(tmp_path.iterdir())


def test_processes_are_spawned_whatever_is_set():
    mp.set_start_method("spawn", force=True)
    assert mp.get_start_method() == "spawn"
    assert mp.cpu_count() > 0
    mp.set_sharing_strategy("file_system")
    with pytest.raises(ValueError, match="spawned"):
        mp.set_start_method("fork")


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"swa_lr": 0.05, "anneal_epochs": 4}, [0.2, 0.178033, 0.125, 0.071967, 0.05, 0.05, 0.05]),
        ({"swa_lr": [0.5], "anneal_epochs": 3, "anneal_strategy": "linear"}, [0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5]),
        ({"swa_lr": 0.05, "anneal_epochs": 0}, [0.05] * 7),
    ],
)
def test_the_rate_of_averaging_is_pytorchs(settings, rates):
    optimizer = rl.optim.SGD([rl.ones(1, requires_grad=True)], lr=0.2)
    schedule = swa_utils.SWALR(optimizer, **settings)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(6):
        schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(found, rates, atol=1e-6)


def test_averaged_models():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    equal = swa_utils.AveragedModel(model)
    moving = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True)
    single = swa_utils.AveragedModel(model, avg_fn=swa_utils.get_ema_avg_fn(0.9))
    assert list(equal.state_dict())[:3] == ["n_averaged", "module.0.weight", "module.0.bias"]
    weights = []
    for k in range(3):
        with rl.no_grad():
            model[0].weight.fill_(float(k))
            model[1].running_mean.fill_(float(k))
        weights.append(float(k))
        for averaged in (equal, moving, single):
            averaged.update_parameters(model)
    assert equal.module[0].weight.mean().item() == pytest.approx(np.mean(weights))
    expected = 0.9 * (0.9 * 0.0 + 0.1 * 1.0) + 0.1 * 2.0
    for averaged in (moving, single):
        assert averaged.module[0].weight.mean().item() == pytest.approx(expected)
    assert moving.module[1].running_mean.mean().item() == pytest.approx(expected)
    assert single.module[1].running_mean.tolist() == [2.0, 2.0]
    assert equal.n_averaged.item() == 3
    with pytest.raises(ValueError, match="not both"):
        swa_utils.AveragedModel(model, avg_fn=swa_utils.get_swa_avg_fn(), multi_avg_fn=swa_utils.get_swa_multi_avg_fn())

    rows = rl.randn(12, 2)
    swa_utils.update_bn(DataLoader(TensorDataset(rows), 4), equal)
    norm = equal.module[1]
    np.testing.assert_allclose(norm.running_mean.numpy(), equal.module[0](rows).mean(0).detach().numpy(), atol=1e-5)
    assert norm.momentum == 0.1
    assert norm.num_batches_tracked.item() == 3


def test_a_chain_of_products_and_further_linear_algebra():
    generator = np.random.default_rng(1)
    arrays = [generator.normal(size=shape).astype(np.float32) for shape in ((3,), (3, 9), (9, 2), (2, 7), (7,))]
    tensors = [rl.tensor(a) for a in arrays]
    for low, high in ((0, 5), (1, 4), (0, 2), (1, 5)):
        found = rl.linalg.multi_dot(tensors[low:high])
        np.testing.assert_allclose(found.numpy(), np.linalg.multi_dot(arrays[low:high]), rtol=1e-4)
    with pytest.raises(ShapeError):
        rl.linalg.multi_dot(tensors[:1])
    a = generator.normal(size=(2, 3, 3)).astype(np.float32)
    for p in (None, 2, -2, 1, "fro", np.inf):
        np.testing.assert_allclose(rl.linalg.cond(rl.tensor(a), p).numpy(), np.linalg.cond(a, p), rtol=1e-3)
    assert rl.linalg.vecdot(rl.tensor(a), rl.tensor(a), dim=0).allclose(rl.tensor((a * a).sum(0)))
    assert rl.linalg.diagonal(rl.tensor(a), offset=1).equal(rl.tensor(np.diagonal(a, 1, 1, 2).copy()))
