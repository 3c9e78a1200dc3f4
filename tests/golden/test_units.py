"""Every step of SCT by itself: its unit outputs, and its intermediate results on three volumes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastseg.centerline import Centerline
from fastseg.centerline_file import centerline_from_mask
from fastseg.cleanup import clean_slices, clean_volume
from fastseg.crops import CropWindows
from fastseg.engines.compute import Compute
from fastseg.engines.select import open_engine
from fastseg.intensity import rescale_percentiles
from fastseg.networks.network import Network, Role
from fastseg.networks.packs import find_pack
from fastseg.nifti import read_volume
from fastseg.prediction import predict_blocks, predict_slices
from fastseg.quirks import SCT_QUIRKS
from fastseg.resampling import as_slices, resample_in_plane, resample_onto, working_grid
from fastseg.volume import SCT_RPI, Grid, Volume
from tests.golden import parity

pytestmark = pytest.mark.golden

_UNIT = parity.PARITY / "golden" / "unit"
_INTERMEDIATE = parity.PARITY / "golden" / "intermediate"


def _facts(name: str) -> Any:
    path = _UNIT / name
    return json.loads(path.read_text()) if path.is_file() else {}


@pytest.fixture(autouse=True)
def _goldens(shared: Path) -> None:
    if not _UNIT.is_dir():
        pytest.skip(f"no {_UNIT.relative_to(parity.SHARED.parent)} beside the checkout")


def _stack(voxels: Any) -> Any:
    """(x, y, z) as slices."""
    return np.ascontiguousarray(voxels.transpose(2, 0, 1), np.float32)


# Units -----------------------------------------------------------------------------------------------------

_VOLUME_CASES = _facts("volume_step.json").get("cases", [])


def test_there_are_47_cases_of_the_volume_step() -> None:
    assert len(_VOLUME_CASES) == 47


@pytest.mark.parametrize("facts", _VOLUME_CASES, ids=lambda facts: facts["case"])
def test_the_volume_step_is_scts(facts: Any) -> None:
    with np.load(_UNIT / "volume_step.npz") as arrays:
        given, wanted = (_stack(arrays[f"{facts['case']}__{end}"]) for end in ("in", "out"))
    cleaned = clean_volume(given, tuple(facts["zooms"]), quirks=SCT_QUIRKS)
    np.testing.assert_array_equal(cleaned.values, wanted)
    for ours, theirs in (("gap in", "Filling a hole"), ("removed end", "Found isolated")):
        announced = sum(note.startswith(ours) for note in cleaned.notes)
        assert announced == sum(warning.startswith(theirs) for warning in facts["warnings"])


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7])
def test_the_slice_step_is_scts(threshold: float) -> None:
    with np.load(_UNIT / "slice_step.npz") as arrays:
        given, wanted = _stack(arrays["prob"]), _stack(arrays[f"clean_thr{threshold}"])
    np.testing.assert_array_equal(clean_slices(given, np.arange(len(given)), threshold), wanted)


_RESAMPLED = _facts("unit.json").get("resample", [])


@pytest.mark.parametrize("facts", _RESAMPLED, ids=lambda facts: facts["key"])
def test_resampling_there_and_back_is_scts(facts: Any) -> None:
    key = facts["key"]
    with np.load(_UNIT / "resample.npz") as arrays:
        given, out, mask, back = (arrays[f"{key}_{name}"] for name in ("in", "out", "mask", "back"))
    # An affine comes from a file, in float32.
    native = Grid(given.shape, np.array(facts["affine"], np.float32))
    working = working_grid(native)
    assert working.shape == out.shape == tuple(facts["shape_out"])
    # Lengths of columns of a float32 affine.
    np.testing.assert_allclose(working.zooms, facts["zooms_out"], rtol=2.0**-22)
    ours, wanted = resample_in_plane(_stack(given), working), _stack(out)
    # Measured: equal but for two voxels of the oblique r0o, where SCT has 6e-14 for 0.
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-12)
    there, corner = resample_onto(_stack(mask), (0, 0, 0), working, native)
    assert corner == (0, 0, 0)
    # Measured: equal but for less than 1e-15 in place of 0.
    np.testing.assert_allclose(there, _stack(back), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(there > 0.5, _stack(back) > 0.5)


def test_windows_are_scts() -> None:
    table = _facts("unit.json")["crop_windows"]
    assert len(table) == 432
    for centre, size, n, start, end in table:
        grid = Grid((n, n, 1), np.eye(4))
        windows = CropWindows.around(Centerline(grid, np.array([[centre, centre, 0]])), size)
        assert windows.starts.tolist() == [[start, start]], (centre, size, n)
        assert min(start + size, n) == end


# Intermediate results --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Case:
    """What SCT had after every step, and ours up to the crops."""

    golden: parity.Golden
    arrays: dict[str, Any]
    native: Volume
    line: Centerline
    windows: CropWindows
    network: Network

    @property
    def covered(self) -> Any:
        return self.arrays["z_lst"]

    def crops(self, name: str) -> Any:
        return _stack(self.arrays[name])[self.covered]


_CASES = ["t2_2d_thr0.5", "t2_3d_thr0.5", "t2s_2d_thr0.5", "t2s_3d_thr0.5", "dwi_mean_2d_thr0.5"]


@pytest.fixture(scope="module", params=_CASES)
def case(request: pytest.FixtureRequest, shared: Path) -> _Case:
    if not _INTERMEDIATE.is_dir():
        pytest.skip("no intermediate results beside the checkout")
    kernel = "2d" if "_2d_" in request.param else "3d"
    (golden,) = (g for g in parity.goldens() if f"{g.case}_{g.option}" == request.param)
    with np.load(_INTERMEDIATE / f"{request.param}.npz") as stored:
        arrays = {key: stored[key] for key in stored.files}
    native = read_volume(golden.image)[0].reoriented(SCT_RPI)
    drawn = read_volume(golden.centerline)[0].reoriented(SCT_RPI)
    role = Role.SEGMENT_3D if kernel == "3d" else Role.SEGMENT_2D
    network = find_pack(parity._pack("models")).network(role, golden.contrast)
    line = centerline_from_mask(drawn, working_grid(native.grid))
    windows = CropWindows.around(line, network.spatial[0])
    return _Case(golden, arrays, native, line, windows, network)


def test_the_working_grid_is_scts(case: _Case) -> None:
    working = working_grid(case.native.grid)
    assert working.shape == case.arrays["uncrop"].shape
    np.testing.assert_array_equal(working.affine, case.arrays["res_affine"])
    # SCT scales float32 zooms where ours are lengths of the float32 affine: one unit of 24 bits.
    np.testing.assert_allclose(working.zooms, case.arrays["res_zooms"], rtol=2.0**-22)


def test_the_resampled_volume_is_scts(case: _Case) -> None:
    if "res" not in case.arrays:
        pytest.skip("stored for the 2d cases only")
    working = working_grid(case.native.grid)
    ours = resample_in_plane(as_slices(case.native), working)
    # Rounding noise of 1e-12 in SCT's coordinates may move the rounding to float32 by one unit.
    np.testing.assert_allclose(ours, _stack(case.arrays["res"]), rtol=2.0**-23)


def test_the_centerline_is_scts(case: _Case) -> None:
    assert case.line.z.tolist() == case.covered.tolist()
    wanted = case.arrays["ctl_com"]
    np.testing.assert_array_equal(case.line.points[:, :2], wanted[case.covered])


def test_the_windows_of_a_volume_are_scts(case: _Case) -> None:
    starts = np.column_stack([case.arrays["x_lst"], case.arrays["y_lst"]])
    np.testing.assert_array_equal(case.windows.starts, starts)


def test_the_crops_are_scts(case: _Case) -> None:
    ours = case.windows.extract(as_slices(case.native))
    # As for the resampled volume.
    np.testing.assert_allclose(ours, case.crops("crop"), rtol=2.0**-23)


def test_the_intensities_are_scts(case: _Case) -> None:
    crops = case.crops("crop")
    without = case.native.grid.shape[2] - len(crops)
    scaled, _ = rescale_percentiles(crops, zero_slices=without)
    np.testing.assert_array_equal(scaled, case.crops("norm"))
    everything = np.concatenate([crops.ravel(), np.zeros(without * crops[0].size)]).astype(np.float64)
    np.testing.assert_array_equal(np.percentile(everything, [2, 98]), case.arrays["p2_p98"])


def test_the_probabilities_are_scts(case: _Case) -> None:
    crops = case.crops("norm")
    with open_engine(case.network, Compute("onnxruntime")) as engine:
        if case.network.role is Role.SEGMENT_3D:
            nz = case.native.grid.shape[2]
            ours = predict_blocks(crops, case.windows.z, nz, case.network, engine)
        else:
            ours = predict_slices(crops, case.network, engine)
    # Another build of onnxruntime, with other graph optimisations, differs by 8.3e-7 (the goldens' README).
    np.testing.assert_allclose(ours, case.crops("prob"), rtol=0, atol=1e-6)


def test_blocks_with_context_along_z_are_scts() -> None:
    with np.load(_INTERMEDIATE / "zctx_t2_3d_prob.npz") as arrays:
        crops, wanted = _stack(arrays["norm"]), _stack(arrays["prob"])
    network = find_pack(parity._pack("models_zctx")).network(Role.SEGMENT_3D, "t2")
    with open_engine(network, Compute("onnxruntime")) as engine:
        ours = predict_blocks(crops, np.arange(len(crops)), len(crops), network, engine)
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-6)  # see above


def test_the_clean_slices_are_scts(case: _Case) -> None:
    ours = clean_slices(case.crops("prob"), case.windows.z, 0.5)
    np.testing.assert_array_equal(ours, case.crops("clean"))


def test_the_mask_put_back_is_scts(case: _Case) -> None:
    canvas, (x, y, z) = case.windows.paste(case.crops("clean"))
    whole = np.zeros_like(_stack(case.arrays["uncrop"]))
    whole[z : z + canvas.shape[0], x : x + canvas.shape[1], y : y + canvas.shape[2]] = canvas
    np.testing.assert_array_equal(whole, _stack(case.arrays["uncrop"]))


def test_the_way_back_to_the_native_grid_is_scts(case: _Case) -> None:
    canvas, corner = case.windows.paste(case.crops("clean"))
    values, (x, y, z) = resample_onto(canvas, corner, case.windows.grid, case.native.grid)
    whole = np.zeros_like(_stack(case.arrays["native_soft"]))
    whole[z : z + values.shape[0], x : x + values.shape[1], y : y + values.shape[2]] = values
    # SCT's mapping has another order of sums: 1e-13 of coordinates, and 24 bits of the result.
    np.testing.assert_allclose(whole, _stack(case.arrays["native_soft"]), rtol=2.0**-23, atol=1e-9)
    np.testing.assert_array_equal(whole > 0.5, _stack(case.arrays["before_volume_step"]) > 0)


def test_the_volume_step_of_a_volume_is_scts(case: _Case) -> None:
    before, after = (_stack(case.arrays[f"{when}_volume_step"]) for when in ("before", "after"))
    cleaned = clean_volume(before, case.native.grid.zooms, quirks=SCT_QUIRKS)
    np.testing.assert_array_equal(cleaned.values, after)
    whole = Volume(after.transpose(1, 2, 0), case.native.grid)
    axcodes = nib.aff2axcodes(nib.load(case.golden.image).affine)
    np.testing.assert_array_equal(whole.reoriented(axcodes).voxels, case.arrays["final_file_orientation"])
