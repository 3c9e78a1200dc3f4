"""Packs as files of SCT: what the graphs around our networks do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fastseg.errors import NetworkError
from fastseg.networks.network import Network, Role
from fastseg.networks.sct import _network as sct_network
from fastseg.networks.sct import read_opencv_svm
from tests.engines.onnx_networks import as_network, convolution, in_pack, run
from tests.unit.networks.stand_ins import svm_values
from tools.export.graphs import threshold_moved, wrapped
from tools.export.svm_yaml import opencv_yaml
from tools.export.wrapper import INPUT, Wrapper

_THRESHOLD = {"t2": 0.7, "t2s": 0.89, "t1": 0.15, "dwi": 0.01}
# One network, two graphs: onnxruntime orders the sums of a convolution by what stands around it.
_SAME = {"rtol": 0, "atol": 2e-6}


def for_sct(network: Network, contrast: str, kind: str) -> bytes:
    sct = sct_network(contrast, kind, network.sha256, "test")
    return wrapped(network.path.read_bytes(), network, sct, contrast, {"fastseg.pack": "test"})


# Heat of a whole-slice detector that falls on SCT's threshold.
_HEAT = 0.2


def moved(p: Any, ours: float, theirs: float) -> Any:
    k = theirs / (1 - theirs) / (ours / (1 - ours))  # the logit shifted, written with odds
    return k * p / (k * p + 1 - p)


# The threshold


@pytest.mark.parametrize("theirs", [0.7, 0.89, 0.15, 0.01, 0.5])
@pytest.mark.parametrize("ours", [0.5, 0.31, 0.999, 0.01, 0.0, 1.0])
def test_what_is_above_our_threshold_and_nothing_else_is_above_scts(
    ours: float, theirs: float, tmp_path: Path
) -> None:
    network = identity(tmp_path, (0, 0))
    w = Wrapper(network.path.read_bytes(), network)
    y = threshold_moved(w, w.run_network(INPUT), ours, theirs)
    near = [np.float32(ours)]
    for _ in range(4):
        near += [np.nextafter(near[-1], np.float32(2)), np.nextafter(near[0], np.float32(-1))]
    values = np.concatenate([near, np.linspace(0, 1, 2001), [1e-30, 1 - 1e-7]]).astype(np.float32).clip(0, 1)
    result = run(w.file(y, (1, 1, values.size), {}), values.reshape(1, 1, 1, -1)).ravel()
    cord = values > np.float32(ours)
    np.testing.assert_array_equal(result > np.float32(theirs), cord)
    np.testing.assert_array_equal(result.astype(np.float64) > theirs, cord)
    assert (np.diff(result[np.argsort(values)]) > -1e-6).all()  # monotone but for rounding
    if 0 < ours < 1:
        assert result[values == 0].max() == 0
        assert result[values == 1].min() == 1


def identity(folder: Path, spatial: tuple[int, ...], **facts: Any) -> Network:
    shape = ["N", 1, *(n or f"n{axis}" for axis, n in enumerate(spatial))]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("in", "out")]
    nodes = [onnx.helper.make_node("Identity", ["in"], ["out"])]
    return as_network(folder / "identity.onnx", model(nodes, ends), spatial, **facts)


def model(nodes: Any, ends: Any, opset: int = 13, domain: str = "") -> bytes:
    graph = onnx.helper.make_graph(nodes, "network", ends[:1], ends[1:])
    opsets = [onnx.helper.make_opsetid(each, opset) for each in sorted({"", domain})]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


# Slice by slice


@pytest.mark.parametrize("contrast", ["t1", "t2", "t2s", "dwi"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_crops_reach_the_2d_network_as_its_pack_wants_them(
    channels_last: bool, contrast: str, tmp_path: Path
) -> None:
    made = convolution(tmp_path, spatial=(64, 64), channels_last=channels_last)
    network = in_pack(made, Role.SEGMENT_2D, contrast, 0.4, mean=71.5, std=64.25)
    crops = np.random.default_rng(1).uniform(0, 255, (3, 64, 64))
    fed = ((np.float32(crops).astype(np.float64) - 71.5) / 64.25)[:, None]
    wanted = run(network.path.read_bytes(), np.moveaxis(fed, 1, -1) if channels_last else fed)
    wanted = wanted.reshape(3, 64, 64, 1)
    result = run(for_sct(network, contrast, "sc"), crops[..., None])
    np.testing.assert_allclose(result, moved(wanted.astype(np.float64), 0.4, _THRESHOLD[contrast]), **_SAME)


def test_a_network_of_any_size_takes_scts_crops(tmp_path: Path) -> None:
    network = in_pack(convolution(tmp_path), Role.SEGMENT_2D, "t2", 0.7)
    crops = np.random.default_rng(1).uniform(0, 1, (2, 64, 64))
    wanted = run(network.path.read_bytes(), crops[:, None])[:, 0]
    np.testing.assert_allclose(run(for_sct(network, "t2", "sc"), crops[..., None])[..., 0], wanted, **_SAME)


# Blocks of slices


def standardised(block: Any, contrast: str) -> Any:
    """A block as SCT feeds it."""
    sct = sct_network(contrast, "sc_3D", "0" * 64, "test")
    return ((block - sct.mean) / sct.std)[None, None].astype(np.float32)


def block_of(*shape: int) -> Any:
    return np.random.default_rng(2).uniform(1, 255, shape)


@pytest.mark.parametrize("channels_last", [False, True])
def test_blocks_reach_the_3d_network_as_its_pack_wants_them(channels_last: bool, tmp_path: Path) -> None:
    made = convolution(tmp_path, spatial=(64, 64, 48), channels_last=channels_last)
    network = in_pack(made, Role.SEGMENT_3D, "t1", 0.5, mean=100.0, std=50.0)
    block = block_of(64, 64, 48)
    fed = ((block - 100) / 50).reshape(1, 64, 64, 48, 1)
    fed = fed if channels_last else np.moveaxis(fed, -1, 1)
    wanted = run(network.path.read_bytes(), fed).reshape(1, 1, 64, 64, 48)
    result = run(for_sct(network, "t1", "sc_3D"), standardised(block, "t1"))
    assert result.shape == (1, 1, 64, 64, 48)
    # The block came back from float32 of another scale: 1e-5 of 255.
    np.testing.assert_allclose(result, moved(wanted.astype(np.float64), 0.5, 0.15), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("n_x", "n_y", "x", "y"),
    [(96, 96, 16, 16), (49, 96, 0, 16), (70, 54, 6, 0), (80, 79, 16, 15), (64, 65, 0, 1)],
)
def test_of_scts_wider_window_the_network_sees_the_part_that_is_fastsegs_window(
    n_x: int, n_y: int, x: int, y: int, tmp_path: Path
) -> None:
    """Also where the field of view ends inside the window, in the tight volume t2s of sct_testing."""
    network = in_pack(identity(tmp_path, (64, 64, 48)), Role.SEGMENT_3D, "t2s", 0.89, std=255.0)
    block = np.zeros((96, 96, 48))
    block[:n_x, :n_y, :9] = block_of(n_x, n_y, 9)
    result = run(for_sct(network, "t2s", "sc_3D"), standardised(block, "t2s"))[0, 0]
    wanted = np.zeros((96, 96, 48))
    wanted[x : x + 64, y : y + 64] = block[x : x + 64, y : y + 64] / 255
    np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("contrast", ["t2", "t2s"])
@pytest.mark.parametrize(("first", "stop"), [(0, 48), (0, 5), (3, 9), (47, 48)])
def test_a_network_of_any_depth_sees_the_slices_that_have_something_in_them(
    first: int, stop: int, contrast: str, tmp_path: Path
) -> None:
    network = in_pack(convolution(tmp_path, spatial=(64, 64, 0)), Role.SEGMENT_3D, contrast, mean=127, std=80)
    n = sct_network(contrast, "sc_3D", "0" * 64, "test").spatial[0]
    block, wanted = np.zeros((n, n, 48)), np.zeros((n, n, 48))
    block[:, :, first:stop] = block_of(n, n, stop - first)
    inside = slice((n - 64) // 2, (n + 64) // 2)
    part = block[inside, inside, first:stop]
    answer = run(network.path.read_bytes(), ((part - 127) / 80)[None, None])[0, 0].astype(np.float64)
    wanted[inside, inside, first:stop] = moved(answer, 0.5, _THRESHOLD[contrast])
    result = run(for_sct(network, contrast, "sc_3D"), standardised(block, contrast))[0, 0]
    np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-5)  # see the fixed depth


def test_a_block_without_anything_gives_something(tmp_path: Path) -> None:
    network = in_pack(convolution(tmp_path, spatial=(64, 64, 0)), Role.SEGMENT_3D, "t2")
    result = run(for_sct(network, "t2", "sc_3D"), standardised(np.zeros((64, 64, 48)), "t2"))
    assert result.shape == (1, 1, 64, 64, 48)
    assert np.isfinite(result).all()


# Detection


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_whole_slice_detector_sees_scts_block_at_1_mm(channels_last: bool, tmp_path: Path) -> None:
    made = convolution(tmp_path, channels_last=channels_last)
    network = in_pack(made, Role.DETECT_SLICES, "t2s", mean=0.3, std=0.4)
    sct = sct_network("t2s", "ctr", "0" * 64, "test")
    blocks = np.random.default_rng(4).uniform(0, 255, (2, 80, 80))
    small = blocks.reshape(2, 40, 2, 40, 2).mean((2, 4)) * 0.8 / 255
    fed = np.pad((small.clip(0, 1.2) - 0.3) / 0.4, [(0, 0), (4, 4), (4, 4)])
    heat = run(network.path.read_bytes(), fed[..., None] if channels_last else fed[:, None])
    wanted = doubled(heat.reshape(2, 48, 48))[:, 8:-8, 8:-8]
    result = run(for_sct(network, "t2s", "ctr"), ((blocks - sct.mean) / sct.std)[..., None])
    assert result.shape == (2, 80, 80, 1)
    np.testing.assert_allclose(result[..., 0], moved(wanted, _HEAT, 0.5), **_SAME)


def test_heat_of_larger_pixels_is_brought_to_scts_all_the_same(tmp_path: Path) -> None:
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 1, *sides])
        for name, sides in (("in", ("x", "y")), ("out", ("half_x", "half_y")))
    ]
    half = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [onnx.helper.make_node("AveragePool", ["in"], ["out"], **half)]
    made = as_network(tmp_path / "half.onnx", model(nodes, ends), (0, 0))
    network = in_pack(made, Role.DETECT_SLICES, "t1", std=0.8)
    sct = sct_network("t1", "ctr", "0" * 64, "test")
    blocks = np.broadcast_to(np.linspace(0, 255, 80), (1, 80, 80))  # a ramp stays a ramp
    result = run(for_sct(network, "t1", "ctr"), ((blocks - sct.mean) / sct.std)[..., None])[..., 0]
    inside = slice(8, -8)
    wanted = moved(blocks[:, inside, inside] / 255, _HEAT, 0.5)
    np.testing.assert_allclose(result[:, inside, inside], wanted, **_SAME)


def doubled(images: Any) -> Any:
    """Each pixel as four, bilinearly: their centres lie a quarter pixel off."""
    for axis in (1, 2):
        images = np.moveaxis(images, axis, -1)
        wide = np.concatenate([images[..., :1], images, images[..., -1:]], axis=-1)
        left, middle, right = wide[..., :-2], wide[..., 1:-1], wide[..., 2:]
        pairs = np.stack([0.25 * left + 0.75 * middle, 0.75 * middle + 0.25 * right], axis=-1)
        images = np.moveaxis(pairs.reshape(*images.shape[:-1], -1), -1, axis)
    return images


@pytest.mark.parametrize("threshold", [0.5, 0.1, 0.9])
def test_a_blob_of_3_mm_becomes_a_disc_whatever_the_packs_threshold(threshold: float, tmp_path: Path) -> None:
    """A bright spot stands for the cord, the network gives it back as it is."""
    network = in_pack(identity(tmp_path, (0, 0)), Role.DETECT_SLICES, "t2", threshold, std=0.8)
    sct = sct_network("t2", "ctr", "0" * 64, "test")
    x, y = np.mgrid[:80, :80] / 2 - 19.75  # mm
    block = 255 * np.exp(-(x**2 + y**2) / (2 * 3**2))
    result = run(for_sct(network, "t2", "ctr"), ((block - sct.mean) / sct.std)[None, ..., None])
    radius = np.sqrt((result > 0.5).sum() / 4 / np.pi)
    assert radius == pytest.approx(5.4, abs=0.2)  # the pixels of 1 mm blunt the peak


def test_a_block_detector_passes_through(tmp_path: Path) -> None:
    made = convolution(tmp_path, spatial=(80, 80))
    sct = sct_network("dwi", "ctr", "0" * 64, "test")
    network = in_pack(made, Role.DETECT_BLOCKS, "dwi", mean=sct.mean, std=sct.std)
    batch = np.random.default_rng(5).normal(0, 1, (2, 80, 80))
    wanted = run(network.path.read_bytes(), batch[:, None])[:, 0]
    np.testing.assert_allclose(run(for_sct(network, "dwi", "ctr"), batch[..., None])[..., 0], wanted, **_SAME)


# The file


@pytest.mark.parametrize("opset", [9, 11, 13, 17])
def test_the_file_is_one_that_scts_onnxruntime_takes(opset: int, tmp_path: Path) -> None:
    content = onnx.load(convolution(tmp_path, spatial=(64, 64)).path)
    content.opset_import[0].version = opset
    onnx.helper.set_model_props(content, {"trained": "long ago", "fastseg.pack": "another"})
    network = as_network(tmp_path / "old.onnx", content.SerializeToString(), (64, 64))
    made = for_sct(in_pack(network, Role.SEGMENT_2D, "t2"), "t2", "sc")
    read = onnx.load_model_from_string(made)
    onnx.checker.check_model(read, full_check=True)
    assert 11 <= read.opset_import[0].version <= 13
    assert ([end.name for end in read.graph.input], [end.name for end in read.graph.output]) == (
        ["input_1"],
        ["predictions"],
    )
    assert {p.key: p.value for p in read.metadata_props} == {"trained": "long ago", "fastseg.pack": "test"}
    assert made == for_sct(in_pack(network, Role.SEGMENT_2D, "t2"), "t2", "sc")
    crops = np.random.default_rng(1).uniform(0, 1, (1, 64, 64, 1))
    wanted = run(network.path.read_bytes(), crops.reshape(1, 1, 64, 64)).astype(np.float64)
    np.testing.assert_allclose(run(made, crops).ravel(), moved(wanted, 0.5, 0.7).ravel(), **_SAME)


@pytest.mark.parametrize(
    ("role", "kind", "spatial", "batch", "problem"),
    [
        (Role.SEGMENT_2D, "sc", (48, 48), 0, r"input is \[48, 48\] where SCT's is \[64, 64\]"),
        (Role.SEGMENT_3D, "sc_3D", (64, 64, 24), 0, r"\[64, 64, 24\]"),
        (Role.SEGMENT_3D, "sc_3D", (96, 96, 48), 0, r"\[96, 96, 48\] where SCT's is \[64, 64, 48\]"),
        (Role.DETECT_SLICES, "ctr", (32, 32), 0, r"\[32, 32\]"),
        (Role.SEGMENT_2D, "sc", (64, 64), 8, "8 items at a time"),
    ],
)
def test_a_network_that_does_not_go_into_sct_is_refused(
    role: Role, kind: str, spatial: tuple[int, ...], batch: int, problem: str, tmp_path: Path
) -> None:
    network = in_pack(convolution(tmp_path, spatial=spatial, batch=batch), role, "t2")
    with pytest.raises(NetworkError, match=problem) as caught:
        for_sct(network, "t2", kind)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_what_its_pack_says_is_refused(tmp_path: Path) -> None:
    network = in_pack(convolution(tmp_path, spatial=(64, 64)), Role.SEGMENT_2D, "t2", channels_last=True)
    with pytest.raises(NetworkError, match="where"):
        for_sct(network, "t2", "sc")


def test_nodes_that_only_some_onnxruntimes_have_are_refused(tmp_path: Path) -> None:
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 1, 64, 64])
        for name in ("in", "out")
    ]
    nodes = [onnx.helper.make_node("Gelu", ["in"], ["out"], domain="com.microsoft")]
    content = model(nodes, ends, domain="com.microsoft")
    network = as_network(tmp_path / "vendor.onnx", content, (64, 64))
    with pytest.raises(NetworkError, match=r"com\.microsoft|cannot load"):
        for_sct(in_pack(network, Role.SEGMENT_2D, "t2"), "t2", "sc")


# Support vector machines


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_an_svm_comes_back_number_by_number(scale: float, tmp_path: Path) -> None:
    values = svm_values() * np.float32(scale)
    text = opencv_yaml(values)
    np.testing.assert_array_equal(read_opencv_svm(text.encode()), values)
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "t2_model.yml"
    path.write_text(text)
    hog = cv2.HOGDescriptor()
    assert hog.load(str(path))
    assert (hog.winSize, hog.cellSize, hog.nbins, hog.signedGradient) == ((32, 32), (4, 4), 9, True)
    assert (hog.gammaCorrection, hog.L2HysThreshold, hog.checkDetectorSize()) == (True, 0.2, True)
    np.testing.assert_array_equal(np.ravel(hog.svmDetector), values)
