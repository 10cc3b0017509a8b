"""Methods of modules take PyTorch's arguments by PyTorch's names. Values that PyTorch computed are written out."""

import inspect

import pytest

import rl_lab as rl
from rl_lab import nn

ARGUMENTS = {
    "Module": {
        "apply": ["fn"], "load_state_dict": ["state_dict", "strict", "assign"], "modules": ["remove_duplicate"],
        "state_dict": ["destination", "prefix", "keep_vars"], "register_parameter": ["name", "param"],
        "named_modules": ["memo", "prefix", "remove_duplicate"], "named_buffers": ["prefix", "recurse", "remove_duplicate"],
        "named_parameters": ["prefix", "recurse", "remove_duplicate"], "register_buffer": ["name", "tensor", "persistent"],
        "register_forward_hook": ["hook", "prepend", "with_kwargs", "always_call"], "get_buffer": ["target"],
        "register_forward_pre_hook": ["hook", "prepend", "with_kwargs"], "set_submodule": ["target", "module", "strict"],
        "add_module": ["name", "module"], "zero_grad": ["set_to_none"], "requires_grad_": ["requires_grad"], "train": ["mode"],
        "get_submodule": ["target"], "get_parameter": ["target"], "type": ["dst_type"],
    },
    "Sequential": {"append": ["module"], "extend": ["sequential"], "insert": ["index", "module"], "pop": ["key"]},
    "ModuleList": {"__init__": ["modules"], "append": ["module"], "extend": ["modules"], "insert": ["index", "module"], "pop": ["key"]},
    "ModuleDict": {"__init__": ["modules"], "update": ["modules"], "pop": ["key"]},
    "ParameterList": {"__init__": ["values"], "append": ["value"], "extend": ["values"]},
    "ParameterDict": {
        "__init__": ["parameters"], "update": ["parameters"], "pop": ["key"], "get": ["key", "default"],
        "setdefault": ["key", "default"],
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_arguments_have_the_names_of_pytorch(kind):
    for method, names in ARGUMENTS[kind].items():
        taken = inspect.signature(getattr(getattr(nn, kind), method)).parameters
        assert set(names) <= set(taken), (method, set(names) - set(taken))


LOSSES = {
    "MSELoss": ("input", "target"), "L1Loss": ("input", "target"), "BCELoss": ("input", "target"), "KLDivLoss": ("input", "target"),
    "SmoothL1Loss": ("input", "target"), "HuberLoss": ("input", "target"), "PoissonNLLLoss": ("log_input", "target"),
    "GaussianNLLLoss": ("input", "target", "var"), "BCEWithLogitsLoss": ("input", "target"), "SoftMarginLoss": ("input", "target"),
    "HingeEmbeddingLoss": ("input", "target"), "TripletMarginLoss": ("anchor", "positive", "negative"),
    "MultiLabelSoftMarginLoss": ("input", "target"), "TripletMarginWithDistanceLoss": ("anchor", "positive", "negative"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_losses_take_their_inputs_by_name(name):
    generator = rl.Generator(1)
    given = {key: rl.rand(3, 4, generator=generator) for key in LOSSES[name]}
    loss = getattr(nn, name)()
    assert loss(**given).item() == loss(*given.values()).item()
    first, *others = given
    assert loss(given[first], **{key: given[key] for key in others}).item() == loss(*given.values()).item()


def test_losses_of_classes_take_their_inputs_by_name():
    x, classes = rl.rand(3, 4, generator=rl.Generator(1)), rl.tensor([0, 3, 1])
    for kind in (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss):
        assert kind()(input=x, target=classes).item() == kind()(x, classes).item()
    ones = rl.ones(3)
    assert nn.MarginRankingLoss()(input1=ones, input2=ones * 2, target=ones).item() == 1.0
    assert nn.CosineEmbeddingLoss()(input1=x, input2=x, target=ones).item() == pytest.approx(0.0, abs=1e-6)


def shared() -> nn.Module:
    layer = nn.Linear(2, 2)
    return nn.ModuleDict({"a": layer, "b": layer})


def test_duplicates_are_named_twice_on_request():
    module = shared()
    assert [name for name, _ in module.named_parameters()] == ["a.weight", "a.bias"]
    assert [name for name, _ in module.named_parameters(remove_duplicate=False)] == ["a.weight", "a.bias", "b.weight", "b.bias"]
    assert [name for name, _ in module.named_modules(remove_duplicate=False)] == ["", "a", "b"]
    assert [name for name, _ in module.named_modules(prefix="top")] == ["top", "top.a"]
    assert [name for name, _ in module.named_modules(memo={module["a"]})] == [""]
    assert len(list(module.modules())) == 2
    assert len(list(module.modules(remove_duplicate=False))) == 3


def test_a_state_may_keep_its_parameters_and_join_another():
    layer = nn.Linear(2, 1)
    state = layer.state_dict(keep_vars=True, prefix="x.")
    assert state["x.weight"] is layer.weight
    assert not layer.state_dict()["weight"].requires_grad
    assert list(nn.Linear(1, 1).state_dict(destination=state)) == ["x.weight", "x.bias", "weight", "bias"]


def test_a_state_can_be_assigned():
    layer, other = nn.Linear(2, 1), nn.Linear(2, 1)
    layer.weight.requires_grad_(False)
    compiled = rl.compile(lambda x: layer(x))
    with rl.no_grad():
        for _ in range(3):
            compiled(rl.ones(1, 2))
    layer.load_state_dict(other.state_dict(keep_vars=True), assign=True)
    assert layer.weight is other.weight
    layer.load_state_dict({"weight": rl.ones(1, 2), "bias": rl.zeros(1)}, assign=True)
    assert isinstance(layer.weight, nn.Parameter)
    with rl.no_grad():
        assert compiled(rl.ones(1, 2)).item() == 2.0


def test_hooks_with_keywords_in_their_order_and_after_errors():
    class Scaled(nn.Module):
        def forward(self, x, scale=1.0):
            if scale < 0:
                raise ValueError("negative")
            return x * scale

    module = Scaled()
    heard = []
    module.register_forward_pre_hook(lambda m, inputs: heard.append("second"))
    module.register_forward_pre_hook(lambda m, inputs: heard.append("first"), prepend=True)
    module.register_forward_pre_hook(lambda m, inputs, options: (inputs, {"scale": options["scale"] * 2}), with_kwargs=True)
    module.register_forward_hook(lambda m, inputs, options, out: out + options["scale"], with_kwargs=True)
    handle = module.register_forward_hook(lambda m, inputs, out: heard.append(out), always_call=True)
    assert module(rl.ones(1), scale=3.0).item() == 12.0
    assert heard[:2] == ["first", "second"]
    assert heard[2].item() == 12.0
    with pytest.raises(ValueError, match="negative"):
        module(rl.ones(1), scale=-1.0)
    assert heard[-1] is None
    handle.remove()
    assert module(rl.ones(1), scale=1.0).item() == 4.0


def test_submodules_and_buffers_by_their_names():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert module.get_buffer("1.running_mean") is module[1].running_mean
    with pytest.raises(AttributeError, match="has no buffer"):
        module.get_buffer("1.nothing")
    replacement = nn.Linear(2, 3)
    module.set_submodule("1", replacement, strict=True)
    assert module[1] is replacement
    with pytest.raises(AttributeError, match="has no submodule"):
        module.set_submodule("7", replacement, strict=True)


def test_dictionaries_of_parameters():
    table = nn.ParameterDict(parameters={"a": rl.ones(1)})
    assert table.setdefault("a", rl.zeros(1)).item() == 1.0
    assert table.setdefault("b", rl.zeros(1)).item() == 0.0
    assert isinstance(table["b"], nn.Parameter)
    copied = table.copy()
    assert copied["a"] is table["a"]
    assert table.popitem()[0] == "b"
    assert list(table) == ["a"]
    assert len(copied) == 2


def test_an_optimizer_takes_a_group_by_name():
    optimizer = rl.optim.SGD([nn.Parameter(rl.ones(1))], 0.1)
    optimizer.add_param_group(param_group={"params": nn.Parameter(rl.ones(1)), "lr": 0.5})
    assert optimizer.param_groups[1]["lr"] == 0.5


def test_a_module_has_one_dtype():
    layer = nn.Linear(1, 1)
    assert layer.type(rl.float32) is layer
    with pytest.raises(rl.errors.StateError, match="copies them"):
        layer.share_memory()
    with pytest.raises(rl.errors.DtypeError):
        layer.type(rl.int64)
