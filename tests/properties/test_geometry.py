"""What has to hold for any geometry: turning, cutting out, putting back, batching."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.centerline import Centerline
from fastseg.crops import CropWindows
from fastseg.engines.base import Engine
from fastseg.engines.select import open_engine
from fastseg.volume import Grid, Volume
from tests.engines.onnx_networks import convolution

ORIENTATIONS = st.sampled_from([c for order in permutations(("LR", "PA", "IS")) for c in product(*order)])
SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))
ZOOMS = st.tuples(*[st.floats(0.2, 9)] * 3)
ANGLES = st.tuples(*[st.floats(-3, 3)] * 3)


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    shape = draw(SHAPES)
    turn = nib.eulerangles.euler2mat(*draw(ANGLES))
    shift = [draw(st.floats(-200, 200)) for _ in range(3)]
    grid = Grid(shape, nib.affines.from_matvec(turn @ np.diag(draw(ZOOMS)), shift))
    return Volume(np.arange(np.prod(shape)).reshape(shape), grid)


@settings(deadline=None)
@given(volumes(), ORIENTATIONS)
def test_reorienting_and_back_is_the_identity(volume: Volume, axcodes: tuple[str, str, str]) -> None:
    back = volume.reoriented(axcodes).reoriented(volume.grid.axcodes)
    np.testing.assert_array_equal(back.voxels, volume.voxels)
    assert back.grid.shape == volume.grid.shape
    # Offsets are moved along an axis and back, in float64 below 1000 mm.
    np.testing.assert_allclose(back.grid.affine, volume.grid.affine, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(volumes(), ORIENTATIONS, ORIENTATIONS)
def test_the_way_to_an_orientation_does_not_matter(
    volume: Volume, via: tuple[str, str, str], axcodes: tuple[str, str, str]
) -> None:
    direct, detour = volume.reoriented(axcodes), volume.reoriented(via).reoriented(axcodes)
    assert direct.grid.axcodes == detour.grid.axcodes == axcodes
    np.testing.assert_array_equal(direct.voxels, detour.voxels)
    np.testing.assert_allclose(direct.grid.affine, detour.grid.affine, rtol=0, atol=1e-12)  # see above


@settings(deadline=None)
@given(volumes(), ORIENTATIONS)
def test_every_voxel_keeps_its_place_in_the_world(volume: Volume, axcodes: tuple[str, str, str]) -> None:
    turned = volume.reoriented(axcodes)
    for value in (0, volume.voxels.size // 2, volume.voxels.size - 1):
        places = [each.grid.affine @ [*np.argwhere(each.voxels == value)[0], 1] for each in (volume, turned)]
        np.testing.assert_allclose(*places, rtol=0, atol=1e-12)  # see above


@st.composite
def windows(draw: st.DrawFn) -> CropWindows:
    nx, ny, nz = draw(st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 6)))
    z = sorted(draw(st.sets(st.integers(0, nz - 1), min_size=1)))
    points = [(draw(st.floats(0, nx - 1)), draw(st.floats(0, ny - 1)), each) for each in z]
    grid = Grid((nx, ny, nz), np.diag([-0.5, 0.5, 3, 1]))
    return CropWindows.around(Centerline(grid, np.array(points)), draw(st.sampled_from([2, 4, 8, 16])))


@settings(deadline=None)
@given(windows())
def test_pasting_after_extracting_is_the_identity_inside_the_windows(cut: CropWindows) -> None:
    nx, ny, nz = cut.grid.shape
    slices = np.random.default_rng(51).uniform(1, 2, (nz, nx, ny)).astype(np.float32)
    canvas, (x0, y0, z0) = cut.paste(cut.extract(slices))
    whole = np.zeros_like(slices)
    whole[z0 : z0 + canvas.shape[0], x0 : x0 + canvas.shape[1], y0 : y0 + canvas.shape[2]] = canvas
    inside = np.zeros(slices.shape, bool)
    for z, (x, y) in zip(cut.z, cut.starts, strict=True):
        inside[z, x : x + cut.size, y : y + cut.size] = True
    np.testing.assert_array_equal(whole, np.where(inside, slices, 0))


@settings(deadline=None)
@given(windows())
def test_windows_hold_their_centre_and_the_canvas_has_its_margin(cut: CropWindows) -> None:
    shape = np.array(cut.grid.shape)
    assert (cut.starts >= 0).all()
    assert (cut.starts + np.minimum(cut.size, shape[:2]) <= shape[:2]).all()
    canvas, corner = cut.paste(np.ones((len(cut.z), cut.size, cut.size), np.float32))
    for axis, place in ((1, 0), (2, 1), (0, 2)):
        faces = canvas.swapaxes(0, axis)
        assert corner[place] == 0 or not faces[0].any()
        assert corner[place] + len(faces) == shape[place] or not faces[-1].any()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with open_engine(convolution(tmp_path_factory.mktemp("networks"), spatial=(32, 32))) as opened:
        yield opened


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 80), st.data())
def test_the_answer_to_a_crop_does_not_depend_on_its_neighbours(
    engine: Engine, count: int, data: st.DataObject
) -> None:
    batch = np.random.default_rng(count).normal(size=(count, 1, 32, 32)).astype(np.float32)
    first = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(first + 1, count))
    # Every image goes through the same sums, whatever is beside it.
    np.testing.assert_array_equal(engine.infer(batch)[first:stop], engine.infer(batch[first:stop]))
