"""One volume through all steps. Reads like the Methods section of Gros et al. 2019."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fastseg.centerline import Centerline
from fastseg.cleanup import clean_slices, clean_volume
from fastseg.crops import CropWindows
from fastseg.errors import CordNotFound, OptionError
from fastseg.intensity import rescale_percentiles
from fastseg.locator import Loaded, Locator
from fastseg.networks.network import ANY_CONTRAST, Role
from fastseg.networks.packs import Pack
from fastseg.options import Detector, Options
from fastseg.prediction import predict_blocks, predict_slices
from fastseg.profiling import recording, span
from fastseg.quality import contrast_note, ring_contrast
from fastseg.resampling import resample_onto
from fastseg.volume import SCT_RPI, Volume

__all__ = ["Segmentation", "Segmenter"]

_ROLES = {"2d": Role.SEGMENT_2D, "2d-light": Role.SEGMENT_2D_LIGHT, "3d": Role.SEGMENT_3D}


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What came out of one volume.

    Parameters
    ----------
    mask : on the input's grid and in its orientation; uint8 0/1, or float32 0..1 for a soft result
    centerline : on the working grid
    detector : what found the centerline: svm, cnn or file
    threshold : that was applied, or that a soft result was cleaned with
    notes : what was noticed on the way, one sentence each
    engines : what ran, by step
    networks : networks that ran, by step: (name, sha256)
    seconds : wall time by step
    """

    mask: Volume
    centerline: Centerline
    detector: Detector
    threshold: float
    notes: tuple[str, ...]
    engines: dict[str, str]
    networks: dict[str, tuple[str, str]]
    seconds: dict[str, float]


class Segmenter:
    """Segments volumes with one set of options; its networks are loaded once.

    Parameters
    ----------
    options : what to do, the same for every volume
    models : name of a pack of networks, or a folder that holds one
    backend : engine to run the networks with; ``auto`` takes the fastest that this machine has
    threads : threads inside one inference. Results do not depend on it.

    Raises
    ------
    NetworkError
        The pack is missing or damaged, or has no network for the options.
    EngineError
        The engine cannot be opened.

    Examples
    --------
    >>> from fastseg.phantom import make_phantom
    >>> volume, _ = make_phantom("t2", n_slices=6)
    >>> with Segmenter(Options(contrast="t2")) as segmenter:
    ...     result = segmenter.segment(volume)
    >>> result.mask.voxels.shape == volume.voxels.shape, str(result.mask.voxels.dtype)
    (True, 'uint8')
    """

    def __init__(
        self, options: Options, *, models: str | Path = "default", backend: str = "auto", threads: int = 1
    ) -> None:
        self.options = options
        self._locator = Locator(options, models=models, backend=backend, threads=threads)
        self._stack = ExitStack()
        self._loaded: Loaded | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # closes what is open when the next one fails
            loaded = self._locator.load(_ROLES[self.options.kernel], stack)
            stack.enter_context(self._locator)
            self._stack = stack.pop_all()
        self._loaded = loaded
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._loaded = None

    @property
    def pack(self) -> Pack:
        """Where the networks come from."""
        return self._locator.pack

    @property
    def detector(self) -> Detector:
        """What finds the centerline, or tries to first."""
        return self._locator.detector

    @property
    def threshold(self) -> float:
        """Probability above which a voxel is cord."""
        if self.options.threshold is not None:
            return self.options.threshold
        return self._opened().network.thresholds[self.options.contrast]

    def locate(self, volume: Volume, centerline: Volume | None = None) -> Centerline:
        """Find the centerline of a volume only; see `Locator.locate`."""
        self._opened()
        return self._locator.locate(volume, centerline)

    def segment(self, volume: Volume, centerline: Volume | None = None) -> Segmentation:
        """Segment the cord of a volume.

        Parameters
        ----------
        volume : the image, any orientation
        centerline : centerline or mask that was drawn on it, for the detector ``file``

        Raises
        ------
        InputError
            The volume is constant, or the centerline does not fit it.
        CordNotFound
            No cord was found.
        InferenceError
            The engine failed.
        """
        options, loaded = self.options, self._opened()
        notes: list[str] = []
        with recording() as recorder:
            with span("prepare"):
                native = volume.reoriented(SCT_RPI)
                slices = self._locator.slices(native)
            with span("centerline"):
                found = self._locator.trace(slices, native.grid, centerline)
                line = found.centerline
                notes += found.notes
            with span("crop"):
                windows = CropWindows.around(line, loaded.network.spatial[0])
                crops, zero = self._rescaled(windows, slices)
            with span("predict"):
                probabilities = self._predict(crops, windows, zero)
                if found.doubt is not None and not self._confirms(probabilities):
                    raise found.doubt
            with span("clean"):
                kept = self._clean(probabilities, windows, zero)
                if options.contrast != ANY_CONTRAST:
                    notes += filter(None, [contrast_note(options.contrast, ring_contrast(crops, kept))])
            with span("back"):
                canvas, corner = windows.paste(kept)
                values, corner = resample_onto(canvas, corner, line.grid, native.grid)
                if not options.soft:
                    values = (values > 0.5).astype(np.float32)
                self._check_found(values)
                cleaned = clean_volume(
                    values,
                    native.grid.zooms,
                    first_slice=corner[2],
                    support=self._soft_support if options.soft else 0.0,
                    quirks=options.quirks,
                )
                notes += cleaned.notes
                mask = self._place(cleaned.values, corner, native).reoriented(volume.grid.axcodes)
        ran = {"segment": loaded} if found.network is None else {"detect": found.network, "segment": loaded}
        return Segmentation(
            mask=mask,
            centerline=line,
            detector=found.detector,
            threshold=self.threshold,
            notes=tuple(notes),
            engines={step: each.engine.name for step, each in ran.items()},
            networks={step: (each.network.name, each.network.sha256) for step, each in ran.items()},
            seconds=recorder.seconds(),
        )

    def _opened(self) -> Loaded:
        if self._loaded is None:
            raise OptionError("the Segmenter is closed: use it in a with block")
        return self._loaded

    def _rescaled(
        self, windows: CropWindows, slices: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float]:
        quirky = self.options.quirks.empty_slices_in_percentiles
        crops = windows.extract(slices)
        return rescale_percentiles(crops, zero_slices=len(slices) - len(crops) if quirky else 0)

    def _predict(self, crops: NDArray[np.float32], windows: CropWindows, zero: float) -> NDArray[np.float32]:
        network, engine = self._opened()
        if network.role is Role.SEGMENT_3D:
            return predict_blocks(crops, windows.z, windows.grid.shape[2], network, engine, empty=zero)
        return predict_slices(crops, network, engine)

    def _confirms(self, probabilities: NDArray[np.float32]) -> bool:
        """Whether a centerline that only the second detector saw has cord on most of its slices.

        HOG + SVM draws a curve through whatever it is given.
        """
        return float((probabilities > self.threshold).any((1, 2)).mean()) >= 0.5

    def _clean(
        self, probabilities: NDArray[np.float32], windows: CropWindows, zero: float
    ) -> NDArray[np.float32]:
        if self.options.soft:
            return probabilities
        network, engine = self._opened()
        n_slices, empty = windows.grid.shape[2], None
        if self.options.quirks.empty_slices_steer and network.role is not Role.SEGMENT_3D:
            blank = np.full((1, windows.size, windows.size), zero, np.float32)
            empty = predict_slices(blank, network, engine)[0]
        kept = clean_slices(probabilities, windows.z, self.threshold, n_slices=n_slices, empty_slice=empty)
        self._check_found(kept)
        return kept

    @property
    def _soft_support(self) -> float:
        return 0.0 if self.options.quirks.soft_is_all_cord else self.threshold

    def _check_found(self, values: NDArray[np.float32]) -> None:
        support = 0.0
        if self.options.soft and not self.options.quirks.soft_of_nothing:
            support = self.threshold
        if not (values > support).any():
            contrast = self.options.contrast
            given = contrast != ANY_CONTRAST
            remedy = f" with contrast {contrast}; check the contrast, the" if given else "; check the"
            raise CordNotFound(
                f"no spinal cord was found{remedy} field of view, or give a centerline (--centerline file)"
            )

    def _place(self, values: NDArray[np.float32], corner: tuple[int, int, int], native: Volume) -> Volume:
        (x, y, z), (nz, nx, ny) = corner, values.shape
        whole = np.zeros(native.grid.shape, np.float32 if self.options.soft else np.uint8)
        whole[x : x + nx, y : y + ny, z : z + nz] = values.transpose(1, 2, 0)
        return Volume(whole, native.grid)
