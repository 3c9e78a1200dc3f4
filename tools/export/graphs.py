"""Networks of fastseg as graphs that take what SCT gives and give what SCT expects.

SCT's side of it (sizes, layout, mean, std, threshold) comes in as a `Network`: the one that the import of
SCT's own file would make. The numbers are those of docs/sct.md, section "Networks".
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastseg.errors import NetworkError
from fastseg.heatmap import HEAT_ZOOM
from fastseg.networks.network import Network, Role
from fastseg.slice_detection import _MULTIPLE, _SMALLEST
from tools.export.trial import answer_to_noise
from tools.export.wrapper import INPUT, Wrapper

__all__ = ["threshold_moved", "wrapped"]

#: In-plane voxel size of SCT's working grid, in mm.
_SCT_ZOOM = 0.5

#: What 255, SCT's 98th percentile, is of the 99.7th percentile that whole-slice detectors are scaled by: near
#: the median of 12 real volumes of four contrasts (0.77; 0.37 in a large field of view, 0.95 in a tight one).
_BRIGHTEST = 0.8

#: Largest value that whole-slice detectors are given.
_CLIP = 1.2

#: Heat that falls on SCT's detection threshold: 5.4 mm from the cord's centre, where the heat is a Gaussian
#: of 3 mm. SCT's search gives up after ten slices in vain, so a cord that is missed costs more than a blob
#: beside it: at 0.3 and above the search through sct_testing t1 ended early (Dice .53, at 0.2 .95), while t2,
#: t2s and dwi came out the same from 0.2 to 0.6.
_HEAT_LEVEL = 0.2

#: Values of 0..255 up to this one are padding of zeros, which came back from standardising with an error.
_NOTHING = 0.01

# Odds are taken no nearer to 0 and 1, where they are not finite.
_EXTREME = 1e-6

# Of onnx.TensorProto.
_FLOAT, _INT64, _DOUBLE = 1, 7, 11

_RAW = (0.0, 1.0)


def wrapped(content: bytes, network: Network, sct: Network, contrast: str, facts: Mapping[str, str]) -> bytes:
    """Wrap a network for SCT.

    Parameters
    ----------
    content : the network's file, its digest already checked
    network : what its pack says about it
    sct : SCT's own network in the same place
    contrast : whose thresholds are taken
    facts : for metadata_props

    Returns
    -------
    content : ONNX file with the input ``input_1`` and the output ``predictions``, both of SCT's shape

    Raises
    ------
    NetworkError
        The network is not what its pack says, or does not go with SCT's sizes.
    """
    w = Wrapper(content, network)
    ours, theirs = network.thresholds[contrast], sct.thresholds[contrast]
    if network.role is Role.DETECT_SLICES:
        ours = _HEAT_LEVEL
        y = _detected(w, content, network, sct)
    elif network.role is Role.SEGMENT_3D:
        y = _segmented_blocks(w, network, sct)
    else:
        y = _as_it_is(w, network, sct)
    shape = (*sct.spatial, 1) if sct.channels_last else (1, *sct.spatial)
    return w.file(threshold_moved(w, y, ours, theirs), shape, facts, one=sct.role is Role.SEGMENT_3D)


def threshold_moved(w: Wrapper, probabilities: str, ours: float, theirs: float) -> str:
    """Move probabilities so that our threshold falls on theirs.

    Parameters
    ----------
    probabilities : any shape float32, 0..1

    Returns
    -------
    moved : same shape float32
        strictly above `theirs` exactly where the probability is strictly above `ours`

    Notes
    -----
    The logit is shifted by logit(theirs) - logit(ours): with k the ratio of their odds, p becomes
    k p / (k p + 1 - p). That is monotone and keeps 0 and 1. Rounding could carry a value across the
    threshold, so each side is held where it belongs.
    """
    if ours == theirs:
        return probabilities
    scaled = w.node("Mul", probabilities, w.constant(_odds(theirs) / _odds(ours)))
    rest = w.node("Sub", w.constant(1), probabilities)
    moved = w.node("Div", scaled, w.node("Add", scaled, rest))
    # On the right side whether a program compares in float32 or in float64.
    nearest = np.float32(theirs)
    highest = nearest if float(nearest) <= theirs else np.nextafter(nearest, np.float32(-1))
    lowest = np.nextafter(nearest, np.float32(2))
    cord = w.node("Max", moved, w.constant(lowest))
    background = w.node("Min", moved, w.constant(highest))
    return w.node("Where", w.node("Greater", probabilities, w.constant(ours)), cord, background)


def _odds(probability: float) -> float:
    inside = min(max(probability, _EXTREME), 1 - _EXTREME)
    return inside / (1 - inside)


def _as_it_is(w: Wrapper, network: Network, sct: Network) -> str:
    """2D crops, and SCT's own blocks: the sizes are the same, intensities and layout may differ."""
    if any(ours not in (0, theirs) for ours, theirs in zip(network.spatial, sct.spatial, strict=True)):
        raise _sizes_differ(w, network, sct)
    x = _restandardised(w, INPUT, (sct.mean, sct.std), (network.mean, network.std))
    x = _layout(w, x, sct, network.channels_last)
    return _layout(w, w.run_network(x), network, sct.channels_last)


def _segmented_blocks(w: Wrapper, network: Network, sct: Network) -> str:
    """Blocks of slices; a network that takes less than SCT gives, is given the part that fastseg gives it.

    Along z, a network of any depth sees the slices from the first to the last with something in them. Along x
    and y, where SCT's window is the wider one, both have the cord's centre at size // 2 - 1, so ours is the
    middle of it: unless the field of view is smaller than SCT's window, which then begins with it and ends in
    zeros. Ours moves towards its start, as fastseg's windows do.
    """
    sizes = [ours or theirs for ours, theirs in zip(network.spatial, sct.spatial, strict=True)]
    room = [theirs - ours for ours, theirs in zip(sizes, sct.spatial, strict=True)]
    if min(room) < 0 or room[2]:
        raise _sizes_differ(w, network, sct)
    if not any(room) and network.spatial[2]:
        return _as_it_is(w, network, sct)
    whole = _restandardised(w, INPUT, (sct.mean, sct.std), _RAW)
    spans = [_window(w, whole, axis, sct, sizes[axis]) for axis in (0, 1)]
    spans.append(_covered(w, whole, sct) if not network.spatial[2] else _everything(w, sct))
    starts, ends = (w.node("Concat", *names, axis=0) for names in zip(*spans, strict=True))
    part = w.node("Slice", whole, starts, ends, w.constant([2, 3, 4], np.int64))
    part = w.node("Reshape", part, w.constant([1, 1, *sizes[:2], network.spatial[2] or -1], np.int64))
    x = _layout(w, _restandardised(w, part, _RAW, (network.mean, network.std)), sct, network.channels_last)
    y = _layout(w, w.run_network(x), network, sct.channels_last)
    channel, all_ends = w.constant([0, 0], np.int64), w.constant(sct.spatial, np.int64)
    pads = w.node("Concat", channel, starts, channel, w.node("Sub", all_ends, ends), axis=0)
    return w.node("Reshape", w.node("Pad", y, pads), w.constant([1, 1, *sct.spatial], np.int64))


def _window(w: Wrapper, whole: str, axis: int, sct: Network, size: int) -> tuple[str, str]:
    """Where our window begins and ends inside SCT's along x or y: (1,) int64 each."""
    _, end = _content(w, whole, axis, sct)
    middle = sct.spatial[axis] // 2 - size // 2
    start = w.node("Clip", w.node("Sub", end, w.constant(size)), w.constant(0), w.constant(middle))
    return _whole_numbers(w, start, w.node("Add", start, w.constant(size)))


def _covered(w: Wrapper, whole: str, sct: Network) -> tuple[str, str]:
    """First slice with something in it, and the one behind the last; one slice where there is nothing."""
    first, end = _content(w, whole, 2, sct)
    one = w.constant([1])
    end = w.node("Max", end, one)
    return _whole_numbers(w, w.node("Min", first, w.node("Sub", end, one)), end)


def _everything(w: Wrapper, sct: Network) -> tuple[str, str]:
    return w.constant([0], np.int64), w.constant([sct.spatial[2]], np.int64)


def _content(w: Wrapper, whole: str, axis: int, sct: Network) -> tuple[str, str]:
    """First index along an axis with anything but padding, and the one behind the last: (1,) float32 each."""
    n = sct.spatial[axis]
    others = [other for other in range(5) if other != axis + 2]
    largest = w.node("ReduceMax", w.node("Abs", whole), axes=others, keepdims=0)
    seen = w.node("Cast", w.node("Greater", largest, w.constant(_NOTHING)), to=_FLOAT)
    up, down = (w.node("Mul", seen, w.constant(ramp)) for ramp in (np.arange(n) + 1, n - np.arange(n)))
    end, length = (w.node("ReduceMax", ramp, axes=[0], keepdims=1) for ramp in (up, down))
    return w.node("Sub", w.constant(n), length), end


def _whole_numbers(w: Wrapper, start: str, end: str) -> tuple[str, str]:
    return w.node("Cast", start, to=_INT64), w.node("Cast", end, to=_INT64)


def _detected(w: Wrapper, content: bytes, network: Network, sct: Network) -> str:
    """Heat of a whole-slice detector on SCT's blocks: averaged to its voxels, and brought back bilinearly.

    The slice is the block: what lies outside is zero, as beyond a small field of view. The heat may have
    larger pixels than the slice.
    """
    factor = round(HEAT_ZOOM / _SCT_ZOOM)
    small = [n // factor for n in sct.spatial]
    sides = [
        given or max(-(-n // _MULTIPLE) * _MULTIPLE, _SMALLEST)
        for given, n in zip(network.spatial, small, strict=True)
    ]
    if factor * _SCT_ZOOM != HEAT_ZOOM or any(n % factor for n in sct.spatial):
        raise w.error(f"its voxels of {HEAT_ZOOM} mm are no whole number of SCT's")
    if any(side < n for side, n in zip(sides, small, strict=True)):
        raise _sizes_differ(w, network, sct)
    before = [(side - n) // 2 for side, n in zip(sides, small, strict=True)]
    behind = [side - n - b for side, n, b in zip(sides, small, before, strict=True)]
    x = _restandardised(w, INPUT, (sct.mean, sct.std), (0.0, 255 / _BRIGHTEST))
    x = _layout(w, x, sct, False)
    x = w.node("AveragePool", x, kernel_shape=[factor, factor], strides=[factor, factor])
    x = w.node("Clip", x, w.constant(0), w.constant(_CLIP))
    x = _restandardised(w, x, _RAW, (network.mean, network.std))
    x = w.node("Pad", x, w.constant([0, 0, *before, 0, 0, *behind], np.int64))
    y = w.run_network(x if not network.channels_last else w.node("Transpose", x, perm=[0, 2, 3, 1]))
    y = _layout(w, y, network, False)
    # The whole heat first: its border is not the block's.
    heat_sides = answer_to_noise(content, network, sides).shape[2:]
    zooms = [factor * side / given for side, given in zip(sides, heat_sides, strict=True)]
    scales = w.constant([1, 1, *zooms])
    y = w.node("Resize", y, w.constant([]), scales, mode="linear",
               coordinate_transformation_mode="half_pixel")  # fmt: skip
    starts = [factor * b for b in before]
    ends = [start + n for start, n in zip(starts, sct.spatial, strict=True)]
    y = w.node("Slice", y, *(w.constant(each, np.int64) for each in (starts, ends, [2, 3])))
    return w.node("Transpose", y, perm=[0, 2, 3, 1]) if sct.channels_last else y


def _restandardised(w: Wrapper, x: str, given: tuple[float, float], wanted: tuple[float, float]) -> str:
    """Take one (x - mean) / std back and do another; in float64, so that it is rounded once."""
    if given == wanted:
        return x
    x = w.node("Cast", x, to=_DOUBLE)
    if given != _RAW:
        x = w.node("Mul", x, w.constant(given[1], np.float64))
        x = w.node("Add", x, w.constant(given[0], np.float64))
    if wanted != _RAW:
        x = w.node("Sub", x, w.constant(wanted[0], np.float64))
        x = w.node("Div", x, w.constant(wanted[1], np.float64))
    return w.node("Cast", x, to=_FLOAT)


def _layout(w: Wrapper, x: str, network: Network, wanted: bool) -> str:
    """Move the channel of an array in the network's layout to where it is wanted: last or not."""
    axes = len(network.spatial)
    if network.channels_last == wanted:
        return x
    order = [0, *range(2, axes + 2), 1] if wanted else [0, axes + 1, *range(1, axes + 1)]
    return w.node("Transpose", x, perm=order)


def _sizes_differ(w: Wrapper, network: Network, sct: Network) -> NetworkError:
    return w.error(f"its input is {list(network.spatial)} where SCT's is {list(sct.spatial)}")
