"""Support vector machines as the YAML that OpenCV's HOGDescriptor loads, and SCT's OptiC with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["opencv_yaml"]

_HEAD = """\
%YAML:1.0
HOG: !!opencv-object-detector-hog
   winSize: [ 32, 32 ]
   blockSize: [ 8, 8 ]
   blockStride: [ 8, 8 ]
   cellSize: [ 4, 4 ]
   nbins: 9
   derivAperture: 1
   winSigma: 2.
   histogramNormType: 0
   L2HysThreshold: 2.0000000000000001e-01
   gammaCorrection: 1
   nlevels: 64
   signedGradient: 1
"""

# SCT's files have both, behind the descriptor.
_TAIL = "ps0: 1.\nps1: 1.\n"

_PER_LINE = 4


def opencv_yaml(coefficients: NDArray[np.float32]) -> str:
    """Write what `fastseg.networks.sct.read_opencv_svm` and OpenCV read.

    Parameters
    ----------
    coefficients : (577,) float32     576 weights in OpenCV's order and the bias

    Examples
    --------
    >>> opencv_yaml(np.zeros(577, np.float32)).splitlines()[-1]
    'ps1: 1.'
    """
    numbers = [f"{float(value):.8e}" for value in coefficients]  # nine digits bring every float32 back
    lines = [", ".join(numbers[i : i + _PER_LINE]) for i in range(0, len(numbers), _PER_LINE)]
    return f"{_HEAD}   SVMDetector: [ {(',' + chr(10) + '       ').join(lines)} ]\n{_TAIL}"
