"""Blocks are put where the cord is, whichever way they are chosen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fastseg.block_detection import scan_blocks, track_blocks
from fastseg.errors import CordNotFound
from fastseg.networks.network import Network, Role

BRIGHT = 1000


class BrightIsCord:
    """Sees cord wherever the image is bright, and remembers what it was shown."""

    name = "fake"

    def __init__(self, cord=0.9):
        self.cord = cord
        self.batches = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def infer(self, batch):
        self.batches.append(batch.copy())
        return np.where(batch > 1, np.float32(self.cord), np.float32(0.1))


@pytest.fixture(autouse=True)
def _scaled_by_the_extremes(monkeypatch):
    """The discs cover less than 2 % of these images: scaling by percentiles would clip them to black."""
    monkeypatch.setattr(
        "fastseg.block_detection.rescale_percentiles",
        lambda slices: ((slices - slices.min()) * np.float32(255 / BRIGHT), 0.0),
    )


@pytest.fixture
def network(tmp_path):
    return a_network(tmp_path / "none.onnx")


def a_network(path=None):
    # 0 becomes -2 and 255 becomes 3.1; standardised again, they are -2.04 and -1.94: dark
    return Network(path, "", Role.DETECT_BLOCKS, ("t2",), (80, 80), False, 100.0, 50.0, {}, "fake")


def volume(*cords, nz=1, shape=(200, 200)):
    """Black slices with a bright disc of the given diameter, 9 by default, at each (z, x, y[, diameter])."""
    slices = np.zeros((nz, *shape), np.float32)
    across, along = np.ogrid[: shape[0], : shape[1]]
    for z, x, y, *diameter in cords:
        radius = (diameter or [9])[0] / 2
        slices[z][np.hypot(across - x, along - y) < radius] = BRIGHT
    return slices


def track(slices, network, *, brain=False, engine=None):
    visits = []
    result = track_blocks(slices, network, engine or BrightIsCord(), brain=brain, on_visit=visits.append)
    return result, visits


def peak(heat):
    return tuple(int(i) for i in np.unravel_index(heat.argmax(), heat.shape))


def slow_distance(mask):
    """Distance to the nearest pixel that is not of the mask, pixel against pixel."""
    inside, outside = np.argwhere(mask), np.argwhere(~mask)
    out = np.zeros(mask.shape, np.float32)
    for x, y in inside:
        out[x, y] = np.sqrt(((outside - (x, y)) ** 2).sum(axis=1).min())
    return out


# track_blocks


def test_tracking_follows_a_moving_cord_with_one_block_a_slice(network):
    centres = [(100, 90), (105, 95), (112, 99), (120, 100)]
    slices = volume(*[(z, x, y) for z, (x, y) in enumerate(centres)], nz=4)
    result, visits = track(slices, network)
    assert [visit.scan for visit in visits] == [True, False, False, False]
    assert [visit.blocks for visit in visits[1:]] == [((x - 39, y - 39),) for x, y in centres[:-1]]
    assert [visit.centre for visit in visits] == centres
    assert [peak(heat) for heat in result.heat] == centres


def test_a_lost_cord_is_searched_on_the_same_slice(network):
    result, visits = track(volume((0, 30, 30), (1, 150, 140), (2, 150, 140), nz=3), network)
    assert [(visit.z, visit.scan) for visit in visits] == [(0, True), (1, False), (1, True), (2, False)]
    assert [visit.centre for visit in visits] == [(30, 30), None, (150, 140), (150, 140)]
    assert result.found.all()


@pytest.mark.parametrize("corner", [(4, 4), (195, 4), (4, 155), (195, 155)])
def test_a_cord_at_the_border_is_tracked(corner, network):
    # along y, the search sees 160 of the 200 pixels
    result, visits = track(volume((0, *corner), (1, *corner), nz=2, shape=(240, 200)), network)
    assert [visit.scan for visit in visits] == [True, False]
    ((x, y),) = visits[1].blocks
    assert 0 <= x <= 160
    assert 0 <= y <= 80
    assert [peak(heat) for heat in result.heat] == [corner, corner]


@pytest.mark.parametrize("shape", [(50, 60), (79, 200), (200, 33), (1, 80)])
def test_a_field_of_view_smaller_than_a_block_is_searched(shape, network):
    slices = volume((0, 0, 20), (1, 0, 21), nz=2, shape=shape)
    for result in (track(slices, network)[0], scan_blocks(slices, network, BrightIsCord())):
        np.testing.assert_array_equal(result.probabilities > 0, slices > 0)


def test_scts_grid_leaves_out_the_rest_along_y_and_pads_along_x(network):
    assert track(volume((0, 190, 30)), network)[0].found.all()
    with pytest.raises(CordNotFound):
        track(volume((0, 30, 190)), network)
    assert scan_blocks(volume((0, 30, 190)), network, BrightIsCord()).found.all()


def test_a_scan_goes_on_from_the_largest_object_and_tracking_from_all(network):
    result, visits = track(volume((0, 100, 100, 15), (0, 20, 20), (1, 90, 100), (1, 110, 100), nz=2), network)
    assert [visit.centre for visit in visits] == [(100, 100), (100, 100)]
    assert result.probabilities[0, 20, 20] == np.float32(0.9)


def test_the_next_scan_begins_with_the_block_that_held_most_cord(network):
    slices = volume((0, 100, 100), (1, 20, 20), nz=2, shape=(160, 160))
    visits = track(slices, network)[1]
    assert visits[0].blocks == ((0, 0), (80, 0), (0, 80), (80, 80))
    assert visits[2].blocks == ((80, 80), (0, 0), (80, 0), (0, 80))


def test_quirk_3_a_block_that_was_tracked_in_vain_is_standardised_again(network):
    slices = volume((0, 40, 40), (1, 40, 130), nz=2, shape=(80, 160))
    engine = BrightIsCord()
    visits = track(slices, network, engine=engine)[1]
    assert [visit.blocks for visit in visits] == [((0, 0), (0, 80)), ((0, 1),), ((0, 0), (0, 80))]
    first, again = engine.batches[1][0, 0], engine.batches[2][0, 0]
    np.testing.assert_array_equal(first, np.full((80, 80), -2, np.float32))
    np.testing.assert_array_equal(again[:, 0], first[:, 0])
    np.testing.assert_array_equal(again[:, 1:], (first[:, :79] - np.float32(100)) / np.float32(50))


def test_quirk_4_a_tracked_block_that_reaches_into_the_padding_is_written_back_shifted(network):
    # 104 pixels are padded to 160; what [59, 139) shows is written to [24, 104)
    result, visits = track(volume((0, 98, 40), (1, 94, 40), nz=2, shape=(104, 80)), network)
    assert visits[1].blocks == ((59, 0),)
    assert [peak(heat) for heat in result.heat] == [(98, 40), (59, 40)]


def test_quirk_6_with_brain_eleven_misses_in_a_row_end_the_search(network):
    slices = volume((0, 40, 40), (11, 40, 40), (23, 40, 40), nz=25)
    assert np.flatnonzero(track(slices, network, brain=False)[0].found).tolist() == [0, 11, 23]
    result, visits = track(slices, network, brain=True)
    assert np.flatnonzero(result.found).tolist() == [0, 11]
    assert visits[-1].z == 22


def test_with_brain_the_search_can_end_before_the_cord_and_says_so(network):
    slices = volume((11, 40, 40), nz=12)
    assert track(slices, network, brain=False)[0].found[11]
    with pytest.raises(CordNotFound, match="no cord in 11 of 12 slices, where brain = 1 ended"):
        track(slices, network, brain=True)


@pytest.mark.parametrize(("z", "z_max"), [(0, 0), (2, 2), (3, None)])
def test_z_max_is_the_last_slice_with_cord_unless_it_is_the_top_one(z, z_max, network):
    slices = volume((z, 40, 40), nz=4)
    for result in (track(slices, network)[0], scan_blocks(slices, network, BrightIsCord())):
        assert (result.last, result.z_max) == (z, z_max)


# scan_blocks


@pytest.mark.parametrize("shape", [(80, 80), (81, 104), (200, 160), (76, 513)])
def test_every_pixel_is_covered_from_inside_the_field_of_view(shape, network):
    engine = BrightIsCord()
    slices = np.random.default_rng(0).uniform(1000, 2000, (2, *shape)).astype(np.float32)
    engine.infer = lambda batch: engine.batches.append(batch) or np.full_like(batch, 0.9)
    result = scan_blocks(slices, network, engine)
    assert (result.probabilities == np.float32(0.9)).all()
    filled = sum(int((block[0].max(axis=axis) == -2).sum()) for block in engine.batches[0] for axis in (0, 1))
    assert filled == len(engine.batches[0]) * sum(max(80 - n, 0) for n in shape)


def test_a_cord_across_any_seam_lies_whole_in_one_block(network):
    class WholeObjectsOnly(BrightIsCord):
        def infer(self, batch):
            answer = super().infer(batch)
            for block in answer[:, 0]:
                if (block[[0, -1]] > 0.5).any() or (block[:, [0, -1]] > 0.5).any():
                    block[:] = 0
            return answer

    cords = [(z, 15 + 5 * z, 180 - 4 * z, 28) for z in range(35)]
    slices = volume(*cords, nz=35, shape=(200, 200))
    result = scan_blocks(slices, network, WholeObjectsOnly())
    np.testing.assert_array_equal(result.probabilities > 0, slices > 0)


@pytest.mark.parametrize("batch", [1, 3, 7, 16, 1000])
def test_the_result_of_scanning_does_not_depend_on_the_batch_size(batch, network):
    slices = volume((0, 20, 30), (2, 150, 180), nz=3)
    whole = scan_blocks(slices, network, BrightIsCord())
    engine = BrightIsCord()
    result = scan_blocks(slices, network, engine, batch=batch)
    np.testing.assert_array_equal(result.probabilities, whole.probabilities)
    np.testing.assert_array_equal(result.heat, whole.heat)
    assert max(len(part) for part in engine.batches) <= batch


@given(order=st.permutations(range(5)))
@settings(max_examples=10, deadline=None)
def test_the_result_of_scanning_does_not_depend_on_the_order_of_slices(order):
    slices = volume((0, 20, 30), (1, 100, 99), (2, 0, 199), (4, 150, 180), nz=5)
    straight = scan_blocks(slices, a_network(), BrightIsCord())
    turned = scan_blocks(slices[list(order)], a_network(), BrightIsCord())
    np.testing.assert_array_equal(turned.heat, straight.heat[list(order)])
    np.testing.assert_array_equal(turned.found, straight.found[list(order)])


def test_a_small_field_of_view_is_filled_up_with_the_darkest_value(network):
    engine = BrightIsCord()
    scan_blocks(volume((0, 20, 20, 20), shape=(40, 50)) - 900, network, engine)
    (((block,),),) = engine.batches
    assert (block[40:] == -2).all()
    assert (block[:, 50:] == -2).all()
    assert block[0, 0] == -2


def test_where_blocks_overlap_the_highest_probability_counts(network):
    engine = BrightIsCord()
    engine.infer = lambda batch: np.broadcast_to(
        np.linspace(0.6, 0.9, len(batch), dtype=np.float32)[:, None, None, None], batch.shape
    )
    result = scan_blocks(volume((0, 60, 40), shape=(120, 80)), network, engine)
    assert np.unique(result.probabilities).tolist() == [np.float32(0.6), np.float32(0.9)]
    assert (result.probabilities[0, 40:] == np.float32(0.9)).all()


def test_an_answer_that_is_no_number_is_no_cord(network):
    class Broken(BrightIsCord):
        def infer(self, batch):
            answer = super().infer(batch)
            answer[:, :, :10] = np.nan
            return answer

    slices = volume((0, 40, 40), shape=(80, 80))
    for result in (track(slices, network, engine=Broken())[0], scan_blocks(slices, network, Broken())):
        np.testing.assert_array_equal(result.probabilities > 0, slices > 0)


# both


@given(mask=npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=14)))
@settings(max_examples=60, deadline=None)
def test_heat_is_the_distance_to_the_nearest_pixel_without_cord(mask):
    mask = mask.copy()
    mask[0, 0], mask[-1, -1] = False, True
    slices = np.where(mask, np.float32(BRIGHT), np.float32(0))[None]
    heat = scan_blocks(slices, a_network(), BrightIsCord()).heat[0]
    np.testing.assert_array_equal(heat, slow_distance(mask))


def test_probabilities_below_a_half_are_no_cord(network):
    slices = volume((0, 40, 40))
    assert scan_blocks(slices, network, BrightIsCord(0.51)).found.all()
    for detect in (scan_blocks, lambda *args: track_blocks(*args, brain=False)):
        with pytest.raises(CordNotFound, match="try the svm detector"):
            detect(slices, network, BrightIsCord(0.49))


def test_the_slices_are_left_as_they_are(network):
    slices = volume((0, 40, 40), (1, 150, 150), nz=2)
    before = slices.copy()
    track(slices, network)
    scan_blocks(slices, network, BrightIsCord())
    np.testing.assert_array_equal(slices, before)
