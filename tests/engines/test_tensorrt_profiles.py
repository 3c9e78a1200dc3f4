"""Shapes that engines are built for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastseg.engines.tensorrt.conversion import input_of
from fastseg.engines.tensorrt.profiles import Profile, fixed_batch, profile_of
from fastseg.errors import EngineBuildError
from fastseg.networks.network import Network, Role
from fastseg.networks.packs import find_pack
from fastseg.prediction import ask_blocks, ask_slices
from fastseg.slice_detection import padded_slices
from tests.engines.onnx_networks import convolution


def built_in(role: Role) -> tuple[Network, Profile]:
    network = find_pack("default").network(role, "t2")
    return network, profile_of(network, *input_of(network.path.read_bytes()))


@pytest.mark.parametrize("role", [Role.SEGMENT_2D, Role.SEGMENT_2D_LIGHT])
def test_crops_come_one_to_256_at_once(role: Role) -> None:
    _, profile = built_in(role)
    assert (profile.name, profile.least, profile.best, profile.most) == (
        "crops",
        (1, 1, 64, 64),
        (64, 1, 64, 64),
        (256, 1, 64, 64),
    )


@pytest.mark.parametrize("n", [1, 12, 48, 49, 200])
def test_every_block_of_any_volume_fits(n: int) -> None:
    network, profile = built_in(Role.SEGMENT_3D)
    question = ask_blocks(np.ones((n, 64, 64), np.float32), np.arange(n), n, network)
    assert question.batches
    assert all(profile.takes(batch.shape) for batch in question.batches)


def test_all_crops_of_a_volume_fit_up_to_the_most() -> None:
    network, profile = built_in(Role.SEGMENT_2D)
    (batch,) = ask_slices(np.ones((256, 64, 64), np.float32), network).batches
    assert profile.takes(batch.shape)
    assert not profile.takes((257, *batch.shape[1:]))
    assert not profile.takes((0, *batch.shape[1:]))


@pytest.mark.parametrize(("x", "y"), [(1, 1), (20, 60), (64, 200), (512, 512)])
def test_whole_slices_of_a_body_fit(x: int, y: int) -> None:
    network, profile = built_in(Role.DETECT_SLICES)
    batch, _ = padded_slices(np.ones((5, x, y), np.float32), network)
    assert profile.takes(batch.shape)


def test_scts_files_keep_their_batch_depth_and_order_of_axes() -> None:
    segmenter, _ = built_in(Role.SEGMENT_2D)
    last = replace(segmenter, channels_last=True)
    crops = profile_of(last, "input_1", (-1, 64, 64, 1))
    assert (crops.least, crops.best, crops.most) == ((1, 64, 64, 1), (64, 64, 64, 1), (256, 64, 64, 1))
    block = replace(segmenter, role=Role.SEGMENT_3D, spatial=(96, 96, 48))
    shape = (1, 1, 96, 96, 48)
    blocks = profile_of(block, "input_1", shape)
    assert blocks.least == blocks.best == blocks.most == shape
    detector = replace(segmenter, role=Role.DETECT_BLOCKS, spatial=(80, 80))
    # fastseg.block_detection asks about 256 at once.
    assert profile_of(detector, "in", (-1, 1, 80, 80)).most == (256, 1, 80, 80)


@pytest.mark.parametrize("channels_last", [False, True])
def test_files_of_free_size_take_what_the_pack_says(channels_last: bool, tmp_path: Path) -> None:
    network = convolution(tmp_path, channels_last=channels_last)
    name, shape = input_of(network.path.read_bytes())
    free = profile_of(network, name, shape)
    said = profile_of(replace(network, spatial=(24, 20)), name, shape)
    ends = (lambda n, x, y: (n, x, y, 1)) if channels_last else (lambda n, x, y: (n, 1, x, y))
    assert (free.least, free.most) == (ends(1, 1, 1), ends(256, 256, 256))
    assert (said.least, said.most) == (ends(1, 24, 20), ends(256, 24, 20))


def test_files_with_other_axes_are_refused(tmp_path: Path) -> None:
    network = convolution(tmp_path, spatial=(16, 16))
    with pytest.raises(EngineBuildError, match="5 axes where 4 were expected") as caught:
        profile_of(network, "in", (-1, 1, 16, 16, 8))
    assert str(network.path) in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "images"), [((-1, 1, 64, 64), 0), ((1, 1, 64, 64, 48), 1), ((4, 8, 8, 1), 4)]
)
def test_the_fixed_batch_is_the_files(shape: tuple[int, ...], images: int) -> None:
    assert fixed_batch(shape) == images
