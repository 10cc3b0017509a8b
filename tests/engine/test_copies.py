"""Copies as in PyTorch: ``copy``, ``deepcopy`` and pickles of tensors, modules, optimizers, schedules and generators."""

import copy
import io
import multiprocessing
import pickle
import subprocess
import sys
import weakref
from types import FunctionType

import numpy as np
import pytest

import rl_lab as rl
from rl_lab import distributions, nn
from rl_lab.engine.errors import EagerWarning
from rl_lab.engine.ops.elementwise import Unary
from tests.engine.modules import MODULES


def pickled(value):
    return pickle.loads(pickle.dumps(value))


def by_oldest_protocol(value):
    return pickle.loads(pickle.dumps(value, 0))


COPIES = {"deepcopy": copy.deepcopy, "pickle": pickled, "pickle 0": by_oldest_protocol}

TENSORS = {
    "float": lambda: rl.tensor([[1.0, -0.0], [float("nan"), float("inf")]]),
    "int": lambda: rl.tensor([2**62, -(2**62)]),
    "bool": lambda: rl.tensor([True, False, True]),
    "uint8": lambda: rl.tensor(np.array([0, 255], np.uint8)),
    "scalar": lambda: rl.tensor(3.5),
    "empty": lambda: rl.zeros(0, 3),
    "transposed": lambda: rl.arange(6).reshape(2, 3).T,
    "part": lambda: rl.arange(20.0).reshape(4, 5)[1:3, ::2],
    "expanded": lambda: rl.arange(3.0).reshape(3, 1).expand(3, 4),
    "diagonal": lambda: rl.arange(9.0).reshape(3, 3).diagonal(),
    "over an array": lambda: rl.from_numpy(np.arange(4, dtype=np.float32)),
    "data": lambda: rl.arange(4.0).data,
    "a part's data": lambda: rl.arange(4.0)[1:].data,
    "exported": lambda: rl.from_numpy(rl.arange(4.0)[1:].numpy()),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", TENSORS)
def test_a_copy_has_the_numbers_and_its_own_memory(name, how):
    x = TENSORS[name]()
    before = x.numpy().copy()
    y = COPIES[how](x)
    assert type(y) is type(x)
    assert y.dtype is x.dtype
    assert y.shape == x.shape
    assert y.stride() == x.stride()
    np.testing.assert_array_equal(y.numpy(), before)
    y.storage.bytes()[:] = 1  # the whole memory, also outside the part
    np.testing.assert_array_equal(x.numpy(), before)


@pytest.mark.parametrize("name", TENSORS)
def test_a_shallow_copy_shares_the_memory(name):
    x = TENSORS[name]()
    y = copy.copy(x)
    assert y is not x
    assert y.data_ptr() == x.data_ptr()
    np.testing.assert_array_equal(y.numpy(), x.numpy())


@pytest.mark.parametrize("how", COPIES)
def test_tensors_that_share_memory_share_it_in_the_copy(how):
    base = rl.arange(6.0)
    whole, part, turned, data = COPIES[how]([base, base[2:4], base.view(2, 3).T, base.data])
    whole[2] = 77.0
    assert part.tolist() == [77.0, 3.0]
    assert turned.tolist() == [[0.0, 3.0], [1.0, 4.0], [77.0, 5.0]]
    assert data.tolist()[2] == 77.0
    assert base.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_what_a_copy_keeps_of_a_tensor():
    x = rl.ones(2, requires_grad=True)
    (x * 3.0).sum().backward()
    for twin in (copy.deepcopy(x), pickled(x), copy.copy(x)):
        assert twin.requires_grad
        assert twin.is_leaf
    assert copy.deepcopy(x).grad.tolist() == [3.0, 3.0]
    assert copy.deepcopy(x).grad is not x.grad
    assert pickled(x).grad is None
    assert copy.copy(x).grad is None
    parameter = nn.Parameter(rl.ones(2))
    parameter.sum().backward()
    for twin in (copy.deepcopy(parameter), pickled(parameter), copy.copy(parameter)):
        assert type(twin) is nn.Parameter
        assert twin.requires_grad
        assert twin.grad is None
    frozen = nn.Parameter(rl.ones(2), requires_grad=False)
    assert not copy.deepcopy(frozen).requires_grad
    assert not pickled(frozen).requires_grad


def test_computed_values_become_leaves_in_a_pickle_and_cannot_be_deep_copied():
    y = rl.ones(2, requires_grad=True) * 2.0
    twin = pickled(y)
    assert twin.requires_grad
    assert twin.is_leaf
    assert twin.tolist() == [2.0, 2.0]
    with pytest.raises(RuntimeError, match="leaf"):
        copy.deepcopy(y)
    part = rl.ones(2, requires_grad=True)[:1]
    assert pickled(part).requires_grad


def test_a_deep_copy_lets_the_original_go():
    x = rl.ones(2)
    reference = weakref.ref(x)
    twin = copy.deepcopy(x)
    del x
    assert reference() is None
    assert twin.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", MODULES)
def test_a_module_computes_the_same_and_learns_alone(name, how):
    build, shapes = MODULES[name]
    rl.manual_seed(0)
    module = build(nn)
    rng = np.random.default_rng(0)
    inputs = [rl.from_numpy(rng.random(shape, np.float32)) for shape in shapes]
    twin = COPIES[how](module)
    assert str(twin) == str(module)
    ours, theirs = module.state_dict(), twin.state_dict()
    assert list(ours) == list(theirs)
    for key, value in ours.items():
        np.testing.assert_array_equal(value.detach().numpy(), theirs[key].detach().numpy())
        assert value.data_ptr() != theirs[key].data_ptr()
    for a, b in zip(leaves_of(module(*inputs)), leaves_of(twin(*inputs)), strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
    before = [p.detach().clone() for p in module.parameters()]
    with rl.no_grad():
        for p in twin.parameters():
            p.add_(1.0)
    assert all(rl.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))


def leaves_of(value):
    return [value] if isinstance(value, rl.Tensor) else [leaf for part in value if part is not None for leaf in leaves_of(part)]


def test_tied_weights_stay_tied():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    for how in COPIES.values():
        net = how(nn.Sequential(first, second))
        assert net[0].weight is net[1].weight
        assert net[0].weight is not first.weight


OPTIMIZERS = [
    name
    for name, value in vars(rl.optim).items()
    if isinstance(value, type) and issubclass(value, rl.optim.Optimizer) and value is not rl.optim.Optimizer and name != "LBFGS"
]


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_network_and_its_optimizer_go_on_as_the_originals(name, how):
    rl.manual_seed(0)
    net = nn.Linear(3, 2, bias=name != "Muon")  # which takes matrices only
    optimizer = getattr(rl.optim, name)(net.parameters(), lr=0.01)
    schedule = rl.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    x = rl.randn(5, 3)

    def train(net, optimizer, schedule):
        for _ in range(3):
            optimizer.zero_grad()
            (net(x) ** 2).sum().backward()
            optimizer.step()
            schedule.step()
        return [p.tolist() for p in net.parameters()]

    train(net, optimizer, schedule)
    net_2, optimizer_2, schedule_2 = COPIES[how]((net, optimizer, schedule))
    assert optimizer_2.param_groups[0]["params"][0] is net_2.weight
    assert schedule_2.optimizer is optimizer_2
    assert net_2.weight.grad is None
    before = [p.tolist() for p in net.parameters()]
    after = train(net_2, optimizer_2, schedule_2)
    assert [p.tolist() for p in net.parameters()] == before
    assert train(net, optimizer, schedule) == after


@pytest.mark.parametrize("how", [*COPIES.values(), copy.copy])
def test_a_generator_goes_on_with_the_same_numbers(how):
    generator = rl.Generator().manual_seed(3)
    rl.rand(5, generator=generator)
    state = generator.get_state()
    twin = how(generator)
    expected = rl.rand(4, generator=generator).tolist()
    generator.set_state(state)
    if how is copy.copy:
        assert rl.rand(4, generator=twin).tolist() == expected
    else:
        rl.rand(4, generator=generator)
        assert rl.rand(4, generator=twin).tolist() == expected


def test_distributions_are_pickled():
    for distribution in (distributions.Normal(rl.zeros(2), rl.ones(2)), distributions.Categorical(logits=rl.zeros(3))):
        twin = pickled(distribution)
        value = distribution.sample()
        assert rl.equal(twin.log_prob(value), distribution.log_prob(value))


# --- other processes -------------------------------------------------------------------------------------------------

LOADS = """
import pickle, sys
things = pickle.load(sys.stdin.buffer)
print([t.tolist() for t in things[0]], things[1](things[2]).tolist(), things[3].param_groups[0]["lr"])
"""


def test_another_process_reads_what_was_pickled():
    tensors = [make() for name, make in TENSORS.items() if name != "float"]
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.0))
    x = rl.tensor([[1.0, 2.0], [3.0, -1.0]])
    data = pickle.dumps((tensors, net, x, rl.optim.Adam(net.parameters(), lr=0.25)))
    done = subprocess.run([sys.executable, "-c", LOADS], input=data, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() == f"{[t.tolist() for t in tensors]} {net(x).tolist()} 0.25"


def double(x):
    return x * 2.0


def test_worker_pools_get_and_return_tensors():
    inputs = [rl.ones(2), rl.arange(6.0).view(2, 3).T]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        results = pool.map(double, inputs)
    assert [r.tolist() for r in results] == [(x * 2.0).tolist() for x in inputs]


def test_memory_between_processes_is_refused():
    with pytest.raises(RuntimeError, match="share"):
        rl.zeros(3).share_memory_()


# --- pickles that lie --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "strides", "offset"), [((5,), None, 0), ((2,), None, 3), ((2,), (4,), 0), ((2,), (-1,), 1), ((1,), None, -1)]
)
def test_a_pickled_tensor_lies_inside_its_memory(shape, strides, offset):
    function, (storage, *_, dtype, requires_grad) = rl.zeros(4).__reduce_ex__(2)
    with pytest.raises(RuntimeError, match="does not fit"):
        function(storage, shape, strides, offset, dtype, requires_grad)


def test_pickling_while_recording_says_so():
    @rl.compile
    def step(x):
        pickle.dump(x, io.BytesIO())
        return x + 1.0

    with pytest.warns(EagerWarning, match="pickles"):
        step(rl.zeros(2))


@pytest.mark.parametrize("place", [rl, nn.functional], ids=["rl_lab", "functional"])
def test_functions_are_pickled_by_name(place):
    """A module that keeps ``F.relu`` can be sent to a worker like any other."""
    for name in dir(place):
        value = getattr(place, name)
        if isinstance(value, (FunctionType, Unary)) and not name.startswith("_"):
            assert copy.deepcopy(value) is value, name
            assert pickled(value) is value, name


@pytest.mark.parametrize(
    "cut",
    [
        lambda a: a[:, 1:],
        lambda a: a.T,
        lambda a: a[::2],
        lambda a: a[:, 0],
        lambda a: a[1:, ::2],
        lambda a: a.T[1:],
        lambda a: a[:1, 1:],
    ],
)
@pytest.mark.parametrize("kind", [np.float32, np.int64, np.uint8])
def test_a_tensor_shares_the_memory_of_a_strided_array(cut, kind):
    array = np.arange(12).reshape(3, 4).astype(kind)
    part = cut(array)
    x = rl.from_numpy(part)
    np.testing.assert_array_equal(x.numpy(), part)
    assert x.sum().item() == part.sum()
    x.fill_(5)
    assert (part == 5).all()
    part[...] = 7
    assert (x == 7).all().item()
    np.testing.assert_array_equal((x * 2).numpy(), part * 2)


@pytest.mark.parametrize("cut", [lambda a: a[::-1], lambda a: np.broadcast_to(a[0], (3, 4)), lambda a: a.astype(np.float64)])
def test_a_tensor_of_another_array_is_a_copy(cut):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    part = cut(array)
    rl.from_numpy(part).add_(1)
    np.testing.assert_array_equal(part, cut(np.arange(12, dtype=np.float32).reshape(3, 4)))
