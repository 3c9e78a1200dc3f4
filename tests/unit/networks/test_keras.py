"""Keras HDF5 files become ONNX networks that give the same numbers."""

import io
import json
import sys
from pathlib import Path

import h5py
import numpy as np
import onnx
import onnxruntime
import pytest

from fastseg.errors import NetworkError
from fastseg.networks.keras import convert
from tests.reference.keras_numpy import KerasFile, evaluate, unet_2d, unet_3d

# float32 convolutions of a network of this depth against float64 (SCT's own widths: 2.5e-6)
TOLERANCE = 5e-6


def run(content, batch):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (result,) = session.run(["predictions"], {"input_1": np.asarray(batch, np.float32)})
    return result


def assert_same(net, folder, *, rank=2, channels_first=False, batch=3, tolerance=TOLERANCE):
    path = net.write(folder / "net.h5")
    shape = net.layers[0]["config"]["batch_input_shape"][1:]
    x = np.random.default_rng(7).normal(0, 1, (batch, *shape)).astype(np.float32)
    wanted = evaluate(path, x)
    if not channels_first:
        x, wanted = np.moveaxis(x, -1, 1), np.moveaxis(wanted, -1, 1)
    got = run(convert(path.read_bytes()), x)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("norm", [True, False])
def test_a_2d_network_like_scts_gives_the_same_probabilities(tmp_path, norm):
    assert_same(unet_2d(norm=norm), tmp_path)


def test_a_3d_network_like_scts_gives_the_same_probabilities(tmp_path):
    assert_same(unet_3d(), tmp_path, channels_first=True, batch=2)


def test_the_axes_of_a_3d_network_keep_their_order(tmp_path):
    assert_same(unet_3d((1, 4, 8, 12), seed=3), tmp_path, channels_first=True, batch=1)


def test_a_network_whose_channels_come_first_is_converted_like_one_whose_come_last(tmp_path):
    net = KerasFile((2, 9, 7), channels_first=True)
    net.activation(net.batch_norm(net.conv("input_1", 3)), "sigmoid")
    assert_same(net, tmp_path, channels_first=True)


@pytest.mark.parametrize("size", [1, 2, 3, 4, (3, 2)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_any_window_is_padded_as_keras_pads_it(tmp_path, size, stride, padding):
    net = KerasFile((11, 8, 2))
    x = net.conv("input_1", 3, size, strides=[stride] * 2, padding=padding)
    net.activation(x, "sigmoid")
    assert_same(net, tmp_path)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_transposed_convolution_is_as_large_as_keras_makes_it(tmp_path, size, stride, padding):
    net = KerasFile((5, 4, 2))
    x = net.conv("input_1", 3, size, transposed=True, strides=[stride] * 2, padding=padding)
    net.activation(net.batch_norm(x), "sigmoid")
    assert_same(net, tmp_path)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [[2, 2], [1, 1], [3, 3]])
def test_pooling_is_padded_as_keras_pads_it(tmp_path, padding, strides):
    net = KerasFile((9, 7, 2))
    net.activation(net.pool("input_1", padding=padding, strides=strides, pool_size=[2, 3]), "sigmoid")
    assert_same(net, tmp_path)


@pytest.mark.parametrize("config", [{}, {"scale": False}, {"center": False}, {"epsilon": 0.1}])
def test_batch_norm_is_folded_into_the_convolution_before_it(tmp_path, config):
    net = KerasFile((8, 8, 1))
    net.activation(net.batch_norm(net.conv("input_1", 4, use_bias=False), **config), "sigmoid")
    assert_same(net, tmp_path)
    graph = onnx.load_from_string(convert((tmp_path / "net.h5").read_bytes())).graph
    assert [node.op_type for node in graph.node] == ["Conv", "Sigmoid", "Identity"]


def test_batch_norm_that_cannot_be_folded_is_still_right(tmp_path):
    net = KerasFile((8, 8, 1))
    activated = net.batch_norm(net.conv("input_1", 3, activation="relu"))
    plain = net.conv("input_1", 2)
    joined = net.concatenate(activated, net.batch_norm(plain), plain, net.batch_norm("input_1"))
    net.activation(joined, "sigmoid")
    assert_same(net, tmp_path)


def test_the_file_is_valid_onnx_with_free_batch_and_the_same_every_time(tmp_path):
    content = unet_2d().write(tmp_path / "net.h5").read_bytes()
    network = convert(content)
    onnx.checker.check_model(onnx.load_from_string(network), full_check=True)
    assert convert(content) == network
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["N", 1, 16, 16]
    assert session.get_outputs()[0].shape == ["N", 1, 16, 16]


def changed(net, path, index, **config):
    net.layers[index]["config"].update(config)
    return net.write(path / "net.h5").read_bytes()


@pytest.mark.parametrize(
    ("kind", "config", "problem"),
    [
        ("Lambda", {"function": ["code", None, [2.0]]}, "temperature"),
        ("Lambda", {"function": ["code", None, None]}, "temperature"),
        ("Lambda", {"function": "lambda x: __import__('os').abort()"}, "temperature"),
        ("Activation", {"activation": "softsign"}, "softsign"),
        ("BatchNormalization", {"axis": 1}, "axis 1"),
        ("BatchNormalization", {"epsilon": "much"}, "epsilon"),
        ("Concatenate", {"axis": 1}, "axis 1"),
        ("Conv2D", {"padding": "causal"}, "causal"),
        ("Conv2D", {"kernel_size": [3, 3, 3]}, "kernel_size"),
        ("Conv2D", {"kernel_size": [10**9, 10**9]}, "kernel_size"),
        ("Conv2D", {"filters": 5}, "kernel of shape"),
        ("Conv2D", {"groups": 3}, "groups"),
        ("Conv2DTranspose", {"dilation_rate": [2, 2]}, "dilated"),
        ("MaxPooling2D", {"pool_size": [64, 64]}, "larger than its input"),
        ("InputLayer", {"batch_input_shape": [None, None, None, 1]}, "no fixed size"),
        ("InputLayer", {"batch_input_shape": [None, 1]}, "shape"),
    ],
)
def test_a_layer_that_is_not_understood_is_refused_by_name(tmp_path, kind, config, problem):
    net = unet_2d()
    index = next(i for i, layer in enumerate(net.layers) if layer["class_name"] == kind)
    name = net.layers[index]["config"]["name"]
    with pytest.raises(NetworkError, match=problem) as caught:
        convert(changed(net, tmp_path, index, **config))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_kind_of_layer_is_refused_by_name(tmp_path):
    net = KerasFile((8, 8, 1))
    net.add("Permute", ["input_1"], 1, name="permute_1", dims=[2, 1, 3])
    with pytest.raises(NetworkError, match=r"'permute_1' \(Permute\)"):
        convert(net.write(tmp_path / "net.h5").read_bytes())


def test_mixed_layouts_are_refused(tmp_path):
    net = unet_2d()
    with pytest.raises(NetworkError, match="mix channels"):
        convert(changed(net, tmp_path, 1, data_format="channels_first"))


def test_a_layer_used_twice_is_refused(tmp_path):
    net = KerasFile((8, 8, 1))
    net.conv("input_1", 1)
    net.layers[-1]["inbound_nodes"] *= 2
    with pytest.raises(NetworkError, match="more than once"):
        convert(net.write(tmp_path / "net.h5").read_bytes())


@pytest.mark.parametrize(
    "config",
    ["no json", "[]", "{}", '{"class_name": "Sequential", "config": []}', "[" * 100_000, "null",
     '{"class_name": "Model", "config": {"layers": [], "output_layers": []}}'],
)  # fmt: skip
def test_a_model_config_that_is_none_is_one_clear_line(tmp_path, config):
    path = unet_2d().write(tmp_path / "net.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = config[:60_000]
    with pytest.raises(NetworkError) as caught:
        convert(path.read_bytes())
    assert "\n" not in str(caught.value)


def test_what_is_no_hdf5_file_is_one_clear_line(tmp_path):
    whole = unet_2d().write(tmp_path / "net.h5").read_bytes()
    for content in (b"", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04 no", whole[: len(whole) // 2], whole[:600]):
        with pytest.raises(NetworkError) as caught:
            convert(content)
        assert "\n" not in str(caught.value)


def test_a_file_with_weights_only_is_refused(tmp_path):
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.create_group("conv2d_1")
    with pytest.raises(NetworkError, match="no model_config"):
        convert((tmp_path / "weights.h5").read_bytes())


def damage(path: Path, change):
    with h5py.File(path, "r+") as file:
        change(file["model_weights"])
    return path.read_bytes()


def test_weights_are_read_from_this_file_only(tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["values"] = np.ones((3, 3, 1, 3), np.float32)
        file["model_weights/x"] = 1

    def external_link(weights):
        del weights["conv2d_1/conv2d_1/kernel:0"]
        weights["conv2d_1/conv2d_1/kernel:0"] = h5py.ExternalLink(str(secret), "values")

    def external_storage(weights):
        del weights["conv2d_1/conv2d_1/kernel:0"]
        weights.create_dataset(
            "conv2d_1/conv2d_1/kernel:0", (3, 3, 1, 3), np.float32, external=[(str(secret), 0, 108)]
        )

    def virtual(weights):
        del weights["conv2d_1/conv2d_1/kernel:0"]
        layout = h5py.VirtualLayout((3, 3, 1, 3), np.float32)
        layout[:] = h5py.VirtualSource(str(secret), "values", (3, 3, 1, 3))
        weights.create_virtual_dataset("conv2d_1/conv2d_1/kernel:0", layout)

    for change in (external_link, external_storage, virtual):
        path = unet_2d().write(tmp_path / "net.h5")
        with pytest.raises(NetworkError, match=r"conv2d_1.*file"):
            convert(damage(path, change))

    path = unet_2d().write(tmp_path / "net.h5")
    with h5py.File(path, "r+") as file:
        del file["model_weights"]
        file["model_weights"] = h5py.ExternalLink(str(secret), "model_weights")
    with pytest.raises(NetworkError, match="no model_weights"):
        convert(path.read_bytes())


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("conv2d_1/conv2d_1/kernel:0", np.full((3, 3, 1, 3), np.nan, np.float32), "not finite"),
        ("conv2d_1/conv2d_1/kernel:0", np.ones((3, 3, 1, 3), np.int32), "kernel of shape"),
        ("conv2d_1/conv2d_1/bias:0", np.ones((99,), np.float32), "bias of shape"),
        (
            "batchnormalization_2/batchnormalization_2/moving_variance:0",
            np.full(3, -1, np.float32),
            "not positive",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, name, value, problem):
    def change(weights):
        del weights[name]
        weights[name] = value

    path = unet_2d().write(tmp_path / "net.h5")
    with pytest.raises(NetworkError, match=problem):
        convert(damage(path, change))


def test_a_missing_weight_is_named(tmp_path):
    def change(weights):
        weights["conv2d_1"].attrs["weight_names"] = [b"conv2d_1/kernel:0"]

    path = unet_2d().write(tmp_path / "net.h5")
    with pytest.raises(NetworkError, match="no bias"):
        convert(damage(path, change))


@pytest.mark.parametrize("missing", ["h5py", "onnx"])
def test_a_missing_extra_says_how_to_install_it(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(NetworkError, match=r'pip install "fastseg\[import\]"') as caught:
        convert(b"")
    assert missing in str(caught.value)


def test_the_twin_convolves_like_a_plain_sum(tmp_path):
    """Holds the twin itself to numbers that can be checked by hand."""
    net = KerasFile((1, 3, 1))
    net.conv("input_1", 1, (1, 3))
    net.weights["conv2d_1"] = {"kernel": np.array([1.0, 10.0, 100.0]).reshape(1, 3, 1, 1), "bias": [0.5]}
    path = net.write(tmp_path / "net.h5")
    got = evaluate(path, np.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)).ravel()
    np.testing.assert_array_equal(got, [210.5, 321.5, 32.5])
    with h5py.File(io.BytesIO(path.read_bytes())) as file:
        assert json.loads(file.attrs["model_config"])["class_name"] == "Model"
