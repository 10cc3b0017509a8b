"""Modules and schedules against PyTorch's recorded answers; `rl.compile` gives the same bits as eager code."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.engine.errors import EagerWarning
from tests.checks import assert_close, cotangent_for
from tests.engine.cases import Case
from tests.engine.every_case import CASES
from tests.engine.modules import MODULES, SCHEDULES, of_module, prepared, scheduled, tensors_in

ANSWERS = np.load(Path(__file__).parent / "answers.npz", allow_pickle=False)
each_module = pytest.mark.parametrize("name", MODULES)


@each_module
def test_a_module_is_pytorchs(name):
    """Outputs, gradients of inputs and parameters, and buffers after one call."""
    results = of_module(rl, name)
    answers = np.split(ANSWERS[f"module {name}"], np.cumsum([r.numel() for r in results])[:-1])
    for number, (actual, answer) in enumerate(zip(results, answers, strict=True)):
        assert_close(actual.detach().numpy().reshape(-1), answer, f"result {number}", each=2e-5)


@each_module
def test_names_of_a_state_are_pytorchs(name):
    assert list(prepared(rl, name)[0].state_dict()) == list(ANSWERS[f"state {name}"])


@each_module
def test_a_recorded_module_gives_the_same_bits(name):
    """Three calls each: buffers, which change with every call, are compared as well."""

    def step(module, *arrays):
        inputs = [x.detach().requires_grad_() for x in arrays]
        outputs = tensors_in(module(*inputs))
        module.zero_grad()
        total = sum((output * output).sum() for output in outputs)
        total.backward()
        return [*outputs, *[x.grad for x in inputs], *[p.grad for p in module.parameters()]]

    (eager, inputs), (recorded, _) = prepared(rl, name), prepared(rl, name)
    compiled = rl.compile(lambda *arrays: step(recorded, *arrays))
    for scale in (1.0, 0.5, -0.3):
        arrays = [(x * scale).detach() for x in inputs]
        for expected, actual in zip(step(eager, *arrays), compiled(*arrays), strict=True):
            assert expected.detach().numpy().tobytes() == actual.detach().numpy().tobytes()
        for expected, actual in zip(eager.buffers(), recorded.buffers(), strict=True):
            assert expected.numpy().tobytes() == actual.numpy().tobytes()
    assert len(compiled.programs) == 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_pytorchs(name):
    np.testing.assert_allclose(scheduled(rl, name), ANSWERS[f"schedule {name}"], rtol=2e-6, atol=1e-7)


def test_a_recorded_step_sees_the_schedule():
    """Twenty replays of one program under a schedule end in the state of twenty eager steps."""
    ends = []
    for wrap in (lambda f: f, rl.compile):
        parameter = rl.nn.Parameter(rl.tensor([1.0, -2.0]))
        optimizer = rl.optim.Adam([parameter], lr=0.1)
        schedule = rl.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)

        def step(parameter=parameter, optimizer=optimizer):
            optimizer.zero_grad()
            parameter.square().sum().backward()
            optimizer.step()

        run = wrap(step)
        for _ in range(20):
            run()
            schedule.step()
        ends.append(parameter.tolist())
    assert ends[0] == ends[1]
    assert len(run.programs) == 1


def test_a_schedule_is_not_recorded():
    optimizer = rl.optim.SGD([rl.nn.Parameter(rl.ones(1))], lr=0.1)
    schedule = rl.optim.lr_scheduler.StepLR(optimizer, 2)
    with pytest.warns(EagerWarning, match="StepLR"):
        rl.compile(schedule.step)()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_goes_on_where_it_was_saved(name):
    def make():
        optimizer = rl.optim.SGD([rl.nn.Parameter(rl.ones(1))], lr=0.1, momentum=0.9)
        return optimizer, SCHEDULES[name](rl.optim.lr_scheduler, optimizer)

    (first_optimizer, first), (second_optimizer, second) = make(), make()
    metric = [1.0] if name.startswith("ReduceLROnPlateau") else []
    for _ in range(6):
        first.step(*metric)
    second_optimizer.load_state_dict(first_optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    for _ in range(6):
        first.step(*metric)
        second.step(*metric)
        assert first.get_last_lr() == second.get_last_lr()


# --- every case under rl.compile -------------------------------------------------------------------------------------

READS_VALUES = ("index mask", "index empty mask", "masked_select", "write masked values", "repeat_interleave tensor")
"""Cases whose shapes depend on data: these cannot be recorded and say so."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_recorded_case_gives_the_same_bits(case: Case):
    def gradients(*arrays):
        inputs = [x.detach().requires_grad_() for x in arrays[:-1]]
        value = case.function(rl, *inputs)
        if not value.requires_grad:
            return [value]
        found = rl.autograd.grad(value, inputs, arrays[-1], allow_unused=True)
        return [value.detach(), *[g for g in found if g is not None]]

    compiled = rl.compile(gradients)
    for draw in (0, 1):
        arrays = case.arrays(draw)
        cotangent = cotangent_for(case.reference(*[a.astype(np.float64) for a in arrays]))
        tensors = [rl.tensor(a) for a in (*arrays, cotangent)]
        expected = gradients(*tensors)
        if case.name.startswith(READS_VALUES):
            with pytest.warns(EagerWarning) if draw == 0 else contextlib.nullcontext():
                found = compiled(*tensors)
            assert compiled.programs == []
        else:
            found = compiled(*tensors)
        for right, actual in zip(expected, found, strict=True):
            assert right.numpy().tobytes() == actual.numpy().tobytes()


@pytest.mark.parametrize("name", ["conv3d", "conv_transpose3d"])
def test_a_bias_of_another_shape_is_refused(name):
    with pytest.raises(rl.errors.ShapeError, match="the bias must have the shape"):
        getattr(rl.nn.functional, name)(rl.ones(1, 2, 3, 3, 3), rl.ones(2, 2, 1, 1, 1), rl.ones(1))


def test_pooling_volumes_without_samples():
    assert tuple(rl.nn.functional.avg_pool3d(rl.zeros(0, 1, 4, 4, 4), 2).shape) == (0, 1, 2, 2, 2)
