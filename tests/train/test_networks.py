"""Networks, training loop, export and pack: what needs torch (`tools/train/test`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: run tools/train/test")
onnxruntime = pytest.importorskip("onnxruntime")

from fastseg.networks.network import Role  # noqa: E402
from fastseg.networks.packs import load_pack, verify_pack  # noqa: E402
from tools.train import everything, pack  # noqa: E402
from tools.train.batches import Batch  # noqa: E402
from tools.train.export import OPSET, to_onnx  # noqa: E402
from tools.train.loop import Plan, plot_curve, train  # noqa: E402
from tools.train.losses import heat_loss, mask_dice, mask_loss, peak_error  # noqa: E402
from tools.train.networks import Detector, Segmenter2d, Segmenter3d, count_macs  # noqa: E402
from tools.train.pools import POOLS, ensure_pool, read_pool, split  # noqa: E402
from tools.train.recipes import RECIPES, Recipe  # noqa: E402

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore"),  # torch's own deprecations are not ours to mend
]


def _shaken(network: Any, seed: int = 0) -> Any:
    """Batch norms as after training: neither zero nor one."""
    torch.manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias, std=0.2)
            layer.running_mean.normal_(std=0.2)
            layer.running_var.uniform_(0.5, 2.0)
        if hasattr(layer, "mix"):
            torch.nn.init.normal_(layer.mix.weight, std=0.05)
    return network.eval()


def _inputs(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(5).uniform(0, 255, shape).astype(np.float32)


def _probabilities(network: Any, inputs: Any) -> Any:
    with torch.no_grad():
        return torch.sigmoid(network(torch.from_numpy(inputs))).numpy()


def _session(content: bytes) -> Callable[[Any], Any]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


# Export ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_onnx_answers_as_torch_does(name: str) -> None:
    recipe = RECIPES[name]
    network = _shaken(recipe.build())
    run = _session(to_onnx(network, (recipe.inputs, recipe.outputs), recipe.shape, recipe.free))
    others = {
        "detector": [(3, 1, 48, 64), (1, 1, 160, 48)],
        "segmenter_3d": [(1, 1, 64, 64, 1), (2, 1, 64, 64, 5)],
    }
    for shape in ((2, *recipe.shape), (1, *recipe.shape), *others.get(name, ())):
        inputs = _inputs(shape)
        # Batch norm is folded: sums in another order, through about fifteen layers of float32.
        np.testing.assert_allclose(run(inputs), _probabilities(network, inputs), rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", RECIPES)
def test_batch_norm_is_folded_and_the_opset_is_one_that_all_engines_take(name: str) -> None:
    onnx = pytest.importorskip("onnx")
    recipe = RECIPES[name]
    content = to_onnx(recipe.build(), (recipe.inputs, recipe.outputs), recipe.shape, recipe.free)
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == OPSET == 13
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert [model.graph.input[0].name, model.graph.output[0].name] == [recipe.inputs, recipe.outputs]


# Networks --------------------------------------------------------------------------------------------------


def test_costs_are_within_what_was_promised() -> None:
    macs = {name: recipe.macs() / 1e6 for name, recipe in RECIPES.items()}
    assert macs["detector"] <= 30  # a slice of 144 x 144 mm
    assert macs["segmenter_2d"] <= 150
    assert macs["segmenter_2d_light"] <= 40
    assert macs["segmenter_3d"] * 48 <= 8000  # a block


def test_multiply_adds_are_counted_as_by_hand() -> None:
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1),
        torch.nn.MaxPool2d(2),
        torch.nn.ConvTranspose2d(4, 2, 2, stride=2),
    )
    assert count_macs(layers, (1, 8, 8)) == 64 * 4 * 9 + 16 * 4 * 2 * 4


def test_intensities_may_be_scaled_and_shifted() -> None:
    """Slices far from the coil are darker; the networks normalise each."""
    network = _shaken(Segmenter2d((4, 8)))
    inputs = _inputs((1, 1, 64, 64))
    darker = _probabilities(network, inputs * np.float32(0.3) + 20)
    np.testing.assert_allclose(
        darker, _probabilities(network, inputs), atol=5e-3
    )  # the floor of the deviation


def test_an_empty_slice_stays_finite() -> None:
    for network, shape in ((Segmenter2d((4, 8)), (1, 1, 64, 64)), (Detector((2, 4, 4, 4)), (1, 1, 48, 48))):
        assert np.isfinite(_probabilities(_shaken(network), np.zeros(shape, np.float32))).all()


def test_the_3d_network_begins_as_the_2d_one() -> None:
    network = Segmenter3d((4, 8, 16), coarse_start=True).eval()
    inputs = _inputs((1, 1, 64, 64, 3))
    alone = [_probabilities(network.plane, np.ascontiguousarray(inputs[..., z])) for z in range(3)]
    np.testing.assert_allclose(_probabilities(network, inputs), np.stack(alone, -1), atol=1e-6)


def test_slices_talk_to_their_neighbours_and_blocks_do_not() -> None:
    network = _shaken(Segmenter3d((4, 8, 16)))
    inputs = _inputs((2, 1, 64, 64, 12))
    before = _probabilities(network, inputs)
    changed = inputs.copy()
    changed[0, ..., 5] = 0
    moved = abs(_probabilities(network, changed) - before).max((1, 2, 3))
    assert (moved[0, 4:7] > 1e-6).all()
    # Three convolutions of three along z reach three slices, within the context that prediction gives.
    assert (moved[0, [0, 1, 9, 10, 11]] == 0).all()
    assert (moved[1] == 0).all()


# Losses ----------------------------------------------------------------------------------------------------


def test_right_answers_cost_less_than_wrong_ones() -> None:
    targets = torch.zeros(1, 1, 16, 16)
    targets[..., 4:9, 4:9] = 1
    ones = torch.ones_like(targets)
    for loss in (mask_loss, heat_loss):
        assert loss((targets - 0.5) * 8, targets, ones) < loss((0.5 - targets) * 8, targets, ones) / 5
    assert mask_dice((targets - 0.5) * 8, targets) == pytest.approx(1)


def test_pixels_without_weight_cost_nothing() -> None:
    targets, weights = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    logits = torch.full_like(targets, -9.0)
    logits[..., 2, 2] = 9
    weights[..., 2, 2] = 0
    assert heat_loss(logits, targets, weights) < 0.01


def test_peaks_far_away_missing_or_made_up_are_errors() -> None:
    targets, logits = torch.zeros(4, 1, 16, 16), torch.full((4, 1, 16, 16), -5.0)
    targets[:3, 0, 8, 8] = 1
    logits[0, 0, 8, 9] = 5  # 2 mm away: right
    logits[1, 0, 8, 14] = 5  # 12 mm
    logits[3, 0, 1, 1] = 5  # nothing is there
    assert peak_error(logits, targets) == pytest.approx(3 / 4)


# Training --------------------------------------------------------------------------------------------------


def _toy(number: int) -> Batch:
    """A bright square is the cord."""
    random = np.random.default_rng(number)
    inputs = random.uniform(0, 40, (4, 1, 64, 64)).astype(np.float32)
    targets = np.zeros_like(inputs)
    for k, (x, y) in enumerate(random.integers(8, 40, (4, 2))):
        targets[k, 0, x : x + 16, y : y + 16] = 1
    return Batch(inputs + 150 * targets, targets, np.ones_like(targets))


def _trained(folder: Path, steps: int, stop: int | None = None) -> Any:
    torch.manual_seed(3)
    network = Segmenter2d((2, 4))

    def batches(number: int) -> Batch:
        if number == stop:
            raise KeyboardInterrupt
        return _toy(number)

    return train(
        network,
        batches,
        [_toy(1000)],
        Plan(steps, rate=1e-2, average=0.9, every=5),
        folder,
        loss=mask_loss,
        score=mask_dice,
        say=lambda _: None,
    )


def test_training_learns_and_leaves_a_curve(tmp_path: Path) -> None:
    _trained(tmp_path / "toy", 160)
    lines = (tmp_path / "toy/curve.csv").read_text().splitlines()
    assert lines[0] == "step,seconds,loss,validation,score"
    first, last = (
        dict(zip(lines[0].split(","), map(float, line.split(",")), strict=True)) for line in lines[1::31]
    )
    assert last["validation"] < first["validation"] / 2
    plot_curve(tmp_path / "toy/curve.csv", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_training_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = _trained(tmp_path / "whole", 20).state_dict()
    with pytest.raises(KeyboardInterrupt):
        _trained(tmp_path / "parts", 20, stop=12)  # the last checkpoint is that of step 10
    parts = _trained(tmp_path / "parts", 20).state_dict()
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name


def test_pools_are_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POOLS, "crops", (64, 1, False))
    said: list[str] = []
    ensure_pool("crops", tmp_path, 1, 1.0, 1, said.append)
    ensure_pool("crops", tmp_path, 1, 1.0, 1, said.append)
    assert len(said) == 1
    mine, others = split(read_pool("crops", tmp_path), 10)
    assert (len(mine.kinds), len(others.kinds)) == (54, 10)


# The pack --------------------------------------------------------------------------------------------------


def _untrained(work: Path) -> None:
    for recipe in RECIPES.values():
        _write(recipe, work)
    (work / "svm").mkdir()
    for contrast in ("t1", "t2", "t2s", "dwi", "auto"):
        np.save(work / "svm" / f"svm_{contrast}.npy", np.zeros(577, np.float32))


def _write(recipe: Recipe, work: Path) -> None:
    folder = work / recipe.name
    folder.mkdir()
    content = to_onnx(recipe.build(), (recipe.inputs, recipe.outputs), recipe.shape, recipe.free)
    (folder / f"{recipe.name}.onnx").write_bytes(content)


def test_a_pack_holds_every_network_and_svm_and_passes_its_check(tmp_path: Path) -> None:
    _untrained(tmp_path)
    made = load_pack(pack.assemble(tmp_path, tmp_path / "pack", seed=4))
    assert {network.role for network in made.networks} == {
        Role.DETECT_SLICES,
        Role.SEGMENT_2D,
        Role.SEGMENT_2D_LIGHT,
        Role.SEGMENT_3D,
    }
    assert made.detectors("auto") == ("cnn", "svm")
    assert not [check for check in verify_pack(made) if check.problem]
    assert sum(item.path.stat().st_size for item in made.items) < 8e6
    assert "seed 4" in made.source


def test_thresholds_survive_a_new_training(tmp_path: Path) -> None:
    _untrained(tmp_path)
    folder = pack.assemble(tmp_path, tmp_path / "pack", seed=1)
    text = (folder / "pack.toml").read_text()
    (folder / "pack.toml").write_text(text.replace("t1 = 0.5", "t1 = 0.35"))
    again = load_pack(pack.assemble(tmp_path, folder, seed=2))
    assert again.network(Role.SEGMENT_2D, "t1").thresholds["t1"] == 0.35


def test_what_is_made_is_not_made_again(tmp_path: Path) -> None:
    _untrained(tmp_path)
    names = [name for chain in everything.CHAINS for name in chain]
    assert sorted(names) == sorted([*RECIPES, "svm"])
    assert all(everything._is_made(tmp_path, name) for name in names)
    (tmp_path / "svm" / "svm_auto.npy").unlink()
    assert not everything._is_made(tmp_path, "svm")
