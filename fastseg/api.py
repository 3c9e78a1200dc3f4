"""One volume in one call."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastseg.compilation import load_kernels

if TYPE_CHECKING:
    from fastseg.options import Detector, Kernel
    from fastseg.segmenter import Segmentation
    from fastseg.volume import Volume

__all__ = ["segment"]

_logger = logging.getLogger(__name__)


def segment(
    volume: Volume | Path | str,
    contrast: str = "auto",
    *,
    centerline: Volume | Path | str | None = None,
    kernel: Kernel = "2d",
    detector: Detector = "auto",
    threshold: float | None = None,
    soft: bool = False,
    brain: bool | None = None,
    models: str | Path = "default",
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int = 1,
) -> Segmentation:
    """Segment the spinal cord of one volume.

    The networks are opened for this volume and closed again; for many volumes use one
    `fastseg.Segmenter`.

    Parameters
    ----------
    volume : the image, or the NIfTI file that holds it
    contrast : t1, t2, t2s or dwi; auto where the networks need not know it, as the built-in ones
    centerline : centerline or mask drawn on the image, or its file, which may hold points (.json, labels);
        makes the detector ``file``
    kernel, detector, threshold, soft, brain : see `fastseg.Options`
    models : see `fastseg.Segmenter`
    engine, device, precision, threads : see `fastseg.Compute`

    Returns
    -------
    result : its `mask` lies on the image's own grid

    Raises
    ------
    OptionError
        Options are out of range or do not go together.
    InputError
        The image or the centerline cannot be used.
    CordNotFound
        No cord was found.
    NetworkError, EngineError
        The networks are missing, or cannot be run.

    Examples
    --------
    >>> import fastseg
    >>> from fastseg.phantom import make_phantom
    >>> image, _ = make_phantom("t2", n_slices=6)
    >>> result = fastseg.segment(image)
    >>> result.mask.voxels.shape == image.voxels.shape, str(result.mask.voxels.dtype)
    (True, 'uint8')
    >>> result.detector, len(result.centerline.points)
    ('cnn', 6)
    """
    load_kernels(_logger.warning)  # seen without any logging set up: it may take half a minute, once
    from fastseg.drawn import read_drawn
    from fastseg.engines.compute import Compute
    from fastseg.nifti import read_volume
    from fastseg.options import Options
    from fastseg.segmenter import Segmenter
    from fastseg.volume import Volume

    options = Options(
        contrast=contrast,
        kernel=kernel,
        detector="file" if centerline is not None else detector,
        threshold=threshold,
        soft=soft,
        brain=brain,
    )
    compute = Compute(engine, device, precision, threads)
    image = volume if isinstance(volume, Volume) else read_volume(volume)[0]
    drawn = centerline
    notes: tuple[str, ...] = ()
    if drawn is not None and not isinstance(drawn, Volume):
        drawn, notes = read_drawn(Path(drawn), image.grid)
    with Segmenter(options, models=models, compute=compute) as segmenter:
        result = segmenter.segment(image, drawn)
    return replace(result, notes=(*notes, *result.notes))
