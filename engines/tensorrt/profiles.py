"""Which shapes an engine is built for: the least, the one it is fastest at, and the most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastseg.errors import EngineBuildError
from fastseg.networks.network import Network, Role

__all__ = ["Profile", "fixed_batch", "profile_of"]

_Range = tuple[int, int, int]

# Images in a batch. Crops and blocks of SCT's detector come up to 256 at once (fastseg/block_detection.py),
# and a cohort puts those of several volumes together. Blocks of slices take 25 to 50 times a crop's memory.
_CROPS: _Range = (1, 64, 256)
_BLOCKS: _Range = (1, 4, 8)
# Whole slices, every 3 mm of a volume: 16 of the largest size take as much memory as 1024 crops.
_SLICES: _Range = (1, 16, 16)

# Free sizes. Sides of whole slices at 1 mm are multiples of 16, at least 48 (fastseg/slice_detection.py);
# a body is 512 mm wide at most. Blocks are as deep as the volume, up to 48 slices (fastseg/prediction.py).
# A crop or block of a free size in plane is an imported network's; 256 pixels are 128 mm.
_WHOLE: _Range = (48, 144, 512)
_IN_PLANE: _Range = (1, 64, 256)
_DEPTH: _Range = (1, 48, 48)


@dataclass(frozen=True, slots=True)
class Profile:
    """Shapes of a network's input, with its axes in the file's order.

    Parameters
    ----------
    name : of the input in the file
    least, best, most : shapes; any between the first and the last can be run, the second is the fastest
    """

    name: str
    least: tuple[int, ...]
    best: tuple[int, ...]
    most: tuple[int, ...]

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether an engine that was built for it runs this shape.

        Examples
        --------
        >>> profile = Profile("in", (1, 1, 48, 48), (4, 1, 96, 96), (8, 1, 512, 512))
        >>> profile.takes((2, 1, 64, 512)), profile.takes((9, 1, 64, 64)), profile.takes((1, 1, 64))
        (True, False, False)
        """
        return len(shape) == len(self.least) and all(
            low <= n <= high for low, n, high in zip(self.least, shape, self.most, strict=True)
        )


def profile_of(network: Network, name: str, shape: Sequence[int]) -> Profile:
    """Choose the shapes for a network.

    Parameters
    ----------
    name : of its input
    shape : of its input in the file's order, -1 where any size is taken

    Raises
    ------
    EngineBuildError
        The file has another number of axes than the network's pack says.

    Examples
    --------
    >>> from fastseg.networks.packs import find_pack
    >>> segmenter = find_pack("default").network(Role.SEGMENT_3D, "t2")
    >>> profile = profile_of(segmenter, "blocks", (-1, 1, 64, 64, -1))
    >>> profile.least, profile.best, profile.most
    ((1, 1, 64, 64, 1), (4, 1, 64, 64, 48), (8, 1, 64, 64, 48))
    """
    sizes = [
        (size, size, size) if size else _free(network, axis) for axis, size in enumerate(network.spatial)
    ]
    channels = (1, 1, 1)
    ranges = (
        [_batches(network), *sizes, channels]
        if network.channels_last
        else [_batches(network), channels, *sizes]
    )
    if len(shape) != len(ranges):
        raise EngineBuildError(
            f"{network.path}: its input has {len(shape)} axes where {len(ranges)} were expected: "
            "check it with `fastseg models verify`"
        )
    ranges = [each if n < 0 else (n, n, n) for n, each in zip(shape, ranges, strict=True)]
    least, best, most = zip(*ranges, strict=True)
    return Profile(name, least, best, most)


def fixed_batch(shape: Sequence[int]) -> int:
    """Images that a file wants in every batch; 0 where it takes any number.

    Examples
    --------
    >>> fixed_batch((1, 1, 64, 64, 48)), fixed_batch((-1, 64, 64, 1))
    (1, 0)
    """
    return max(shape[0], 0)


def _batches(network: Network) -> _Range:
    if network.role is Role.DETECT_SLICES:
        return _SLICES
    return _BLOCKS if len(network.spatial) == 3 else _CROPS


def _free(network: Network, axis: int) -> _Range:
    if network.role is Role.DETECT_SLICES:
        return _WHOLE
    return _DEPTH if axis == 2 else _IN_PLANE
