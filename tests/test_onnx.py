"""`rl.load_onnx` computes what onnxruntime computes, and `rl.load_torch` reads plain state dicts."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import rl_lab as rl
from rl_lab.errors import FileError, GraphError, StateError
from rl_lab.experiment.export.checking import distance
from rl_lab.serialization import save_file
from tests.experiment.test_export import LAYERS, graph_of, write_onnx

RANDOM = np.random.default_rng(0)


def weights(**shapes):
    return {name: RANDOM.standard_normal(shape).astype(np.float32) * 0.5 for name, shape in shapes.items()}


def ints(**values):
    return {name: np.array(value, np.int64) for name, value in values.items()}


def node(kind, inputs, outputs="y", **attributes):
    return helper.make_node(kind, inputs.split(" "), outputs.split(" "), **attributes)


# nodes, constants, shape of x, outputs
MODELS = {
    "perceptron": (
        [
            node("Gemm", "x w b", "h", transB=1),
            node("Relu", "h", "r"),
            node("Gemm", "r v", alpha=0.5),
            node("Softmax", "y", "z"),
        ],
        weights(w=(8, 6), b=(8,), v=(8, 3)),
        (5, 6),
        "y z",
    ),
    "convolutions": (
        [
            node("Conv", "x w b", "c", pads=[1, 0, 1, 2], strides=[2, 1], group=2),
            node("BatchNormalization", "c s t m v", "n"),
            node("LeakyRelu", "n", "l"),
            node("MaxPool", "l", "p", kernel_shape=[2, 3], strides=[1, 2], pads=[0, 1, 1, 1]),
            node("AveragePool", "p", "a", kernel_shape=[2, 2], pads=[1, 1, 1, 1]),
            node("GlobalAveragePool", "a", "g"),
            node("Flatten", "g"),
        ],
        weights(w=(4, 1, 3, 3), b=(4,), s=(4,), t=(4,), m=(4,)) | {"v": np.array([1, 2, 0.5, 3], np.float32)},
        (2, 2, 8, 7),
        "y a",
    ),
    "GRU": (
        [node("GRU", "x w r b", "all last", hidden_size=4, linear_before_reset=1), node("Squeeze", "all axes")],
        weights(w=(1, 12, 3), r=(1, 12, 4), b=(1, 24)) | ints(axes=[1]),
        (5, 2, 3),
        "y last",
    ),
    "LSTM": (
        [node("LSTM", "x w r b", "all last cell", hidden_size=4), node("Transpose", "all", perm=[2, 0, 1, 3])],
        weights(w=(1, 16, 3), r=(1, 16, 4), b=(1, 32)),
        (5, 2, 3),
        "y last cell",
    ),
    "shapes": (
        [
            node("Shape", "x", "s"),
            node("Slice", "s zero one", "n"),
            node("Concat", "n rest", "shape", axis=0),
            node("Reshape", "x shape", "r"),
            node("Split", "r", "a b", axis=2, num_outputs=2),
            node("Gather", "a index", "g", axis=1),
            node("Unsqueeze", "b axes", "u"),
            node("ReduceMean", "u axes", "m", keepdims=0),
            node("ArgMax", "g", "i", axis=1, keepdims=0),
            node("Clip", "m low high"),
        ],
        ints(zero=[0], one=[1], rest=[3, 4], index=[2, 0, 2], axes=[1]) | {"low": np.float32(-0.5), "high": np.float32(0.5)},
        (2, 12),
        "y i g",
    ),
    "norm": (
        [
            node("LayerNormalization", "x s t", "n", axis=-1),
            node("Gelu", "n", "g"),
            node("Where", "c g n"),
            node("Not", "c", "d"),
        ],
        weights(s=(6,), t=(6,)) | {"c": np.array([1, 0, 0, 1, 1, 0], bool)},
        (3, 6),
        "y",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name, tmp_path):
    nodes, constants, shape, outputs = MODELS[name]
    x = RANDOM.standard_normal(shape).astype(np.float32)

    def model_of(shapes):
        results = [
            helper.make_tensor_value_info(o, TensorProto.INT64 if o == "i" else TensorProto.FLOAT, s)
            for o, s in zip(outputs.split(), shapes, strict=False)
        ]
        given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        kept = [numpy_helper.from_array(array, key) for key, array in constants.items()]
        graph = helper.make_graph(nodes, "g", given, results, kept)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)

    wanted = onnxruntime.InferenceSession(model_of([None] * 9).SerializeToString()).run(None, {"x": x})
    onnx.save(model_of([result.shape for result in wanted]), tmp_path / "m.onnx")
    module = rl.load_onnx(tmp_path / "m.onnx")
    found = module(rl.tensor(x))
    for a, b in zip(found if isinstance(found, tuple) else (found,), wanted, strict=True):
        assert a.shape == b.shape
        assert distance(a.detach().numpy(), b) <= 2e-6
    parameters = list(module.parameters())
    assert len(parameters) == sum(array.dtype == np.float32 for array in constants.values())
    if parameters:
        (found[0] if isinstance(found, tuple) else found).sum().backward()
        assert any(parameter.grad is not None for parameter in parameters)


@pytest.mark.parametrize("name", LAYERS)
def test_exports_can_be_read_again(name, tmp_path):
    shape, make = LAYERS[name]
    rl.manual_seed(0)
    module = make()
    (tmp_path / "m.onnx").write_bytes(write_onnx(graph_of(module, shape)))
    x = rl.randn(7, *shape)
    with rl.no_grad():
        assert distance(rl.load_onnx(tmp_path / "m.onnx")(x).numpy(), module(x).numpy()) <= 2e-6


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(FileError, match="cannot be read as ONNX"):
        rl.load_onnx(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(FileError, match="cannot be read as ONNX"):
        rl.load_onnx(tmp_path / "bad.onnx")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 2)) for name in "xy")
    model = helper.make_model(helper.make_graph([node("Det", "x")], "g", [x], [y]), ir_version=9)
    onnx.save(model, tmp_path / "det.onnx")
    with pytest.raises(GraphError, match="operator 'Det'"):
        rl.load_onnx(tmp_path / "det.onnx")


# --- state dicts -----------------------------------------------------------------------------------------------------


def test_state_dicts_of_torch(tmp_path):
    module = rl.nn.Sequential(rl.nn.Linear(3, 2), rl.nn.BatchNorm1d(2))
    state = {key: value.numpy().copy() + 1 for key, value in module.state_dict().items()}
    state["0.bias"] = state["0.bias"].astype(np.float16)
    save_file(state, tmp_path / "m.safetensors")
    module.load_state_dict(rl.load_torch(tmp_path / "m.safetensors"))
    for key, value in module.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[key])
    with pytest.raises(
        StateError, match=r"size mismatch for weight: the state has shape \[2, 3\], the module has shape \[2, 4\]"
    ):
        rl.nn.Linear(4, 2).load_state_dict(
            {k.removeprefix("0."): v for k, v in rl.load_torch(tmp_path / "m.safetensors").items() if k[0] == "0"}
        )


def test_bfloat16(tmp_path):
    wanted = np.array([[1.5, -2.0], [0.0, 3.25]], np.float32)
    data = (wanted.view(np.uint32) >> 16).astype("<u2").tobytes() + np.array([7], "<i8").tobytes()
    header = {
        "w": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]},
        "n": {"dtype": "I64", "shape": [], "data_offsets": [8, 16]},
    }
    text = json.dumps(header).encode()
    (tmp_path / "b.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    found = rl.load_torch(tmp_path / "b.safetensors")
    np.testing.assert_array_equal(found["w"].numpy(), wanted)
    assert found["n"].item() == 7


def test_damaged_state_dicts(tmp_path):
    for name, content, words in (
        ("none", None, "cannot be read"),
        ("pickled.pt", b"PK\x03\x04" + bytes(200), "save_file"),
        ("short", b"\x00", "cannot be read"),
        ("long", (50).to_bytes(8, "little") + b"{}", "cannot be read"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(FileError, match=words):
            rl.load_torch(tmp_path / name)
