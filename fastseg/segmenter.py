"""One volume through all steps. Reads like the Methods section of Gros et al. 2019."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fastseg.centerline import Centerline
from fastseg.cleanup import clean_slices, clean_volume
from fastseg.crops import CropWindows
from fastseg.engines.base import Engine
from fastseg.engines.compute import AUTO, Compute
from fastseg.engines.select import Engines
from fastseg.errors import CordNotFound, OptionError
from fastseg.intensity import rescale_percentiles
from fastseg.locator import Found, Loaded, Locator
from fastseg.networks.network import ANY_CONTRAST, Role
from fastseg.networks.packs import Pack
from fastseg.options import Detector, Options
from fastseg.prediction import Question, ask_blocks, ask_slices
from fastseg.profiling import recording, span
from fastseg.quality import Quality, assess, contrast_note, ring_contrast
from fastseg.resampling import resample_onto
from fastseg.volume import SCT_RPI, Grid, Volume

__all__ = ["Prepared", "Segmentation", "Segmenter"]

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
    quality : measures of the result, and what is odd about it
    seconds : wall time by step
    """

    mask: Volume
    centerline: Centerline
    detector: Detector
    threshold: float
    notes: tuple[str, ...]
    engines: dict[str, str]
    networks: dict[str, tuple[str, str]]
    quality: Quality
    seconds: dict[str, float]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A volume whose crops wait for the network; its voxels are no longer needed.

    Parameters
    ----------
    grid : of the volume
    native : of the volume in SCT_RPI
    found : the centerline, and how it was found
    windows : around the centerline
    crops : (n, x, y) float32     what lies in the windows, 0..255
    question : for the engine of the Segmenter
    """

    grid: Grid
    native: Grid
    found: Found
    windows: CropWindows
    crops: NDArray[np.float32]
    question: Question


class Segmenter:
    """Segments volumes with one set of options; its networks are loaded once.

    Between `prepare` and `finish` whoever has many volumes runs the engine, on several of them at once. All
    three may be called from several threads.

    Parameters
    ----------
    options : what to do, the same for every volume
    models : name of a pack of networks, or a folder that holds one
    compute : what the networks run on
    engines : open engines to take and add to; they stay open. None: engines of its own.

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
        self,
        options: Options,
        *,
        models: str | Path = "default",
        compute: Compute = AUTO,
        engines: Engines | None = None,
    ) -> None:
        self.options = options
        self._locator = Locator(options, models=models, compute=compute, engines=engines)
        self._stack = ExitStack()
        self._loaded: Loaded | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # closes what is open when the next one fails
            stack.enter_context(self._locator)
            loaded = self._locator.load(_ROLES[self.options.kernel])
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
    def engine(self) -> Engine:
        """What answers the question of a `Prepared`."""
        return self._opened().engine

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
        with recording() as recorder:
            prepared = self.prepare(volume, centerline)
            with span("predict"):
                answers = [self.engine.infer(batch) for batch in prepared.question.batches]
            result = self.finish(prepared, answers)
        return replace(result, seconds=recorder.seconds())

    def prepare(self, volume: Volume, centerline: Volume | None = None) -> Prepared:
        """Do everything before the network: find the cord and cut the crops around it.

        Parameters
        ----------
        volume, centerline : as `segment` takes them

        Raises
        ------
        InputError, CordNotFound, InferenceError
            As in `segment`.
        """
        loaded = self._opened()
        with span("prepare"):
            native = volume.reoriented(SCT_RPI)
            slices = self._locator.slices(native)
        with span("centerline"):
            found = self._locator.trace(slices, native.grid, centerline)
        with span("crop"):
            windows = CropWindows.around(found.centerline, loaded.network.spatial[0])
            crops, zero = self._rescaled(windows, slices)
            question = self._ask(crops, windows, zero)
        return Prepared(volume.grid, native.grid, found, windows, crops, question)

    def finish(self, prepared: Prepared, answers: Sequence[NDArray[np.float32]]) -> Segmentation:
        """Make the result from the network's answers.

        Parameters
        ----------
        prepared : from `prepare`
        answers : of `engine` to each of the question's batches

        Raises
        ------
        CordNotFound
            The network saw no cord.
        """
        options, loaded, found = self.options, self._opened(), prepared.found
        native, windows, line = prepared.native, prepared.windows, found.centerline
        notes = list(found.notes)
        with span("clean"):
            probabilities = prepared.question.read(answers)
            blank = None
            if self._asks_about_nothing:
                probabilities, blank = probabilities[:-1], probabilities[-1]
            if found.doubt is not None and not self._confirms(probabilities):
                raise found.doubt
            kept = self._clean(probabilities, prepared, blank)
            if options.contrast != ANY_CONTRAST:
                ring = ring_contrast(prepared.crops, kept)
                notes += filter(None, [contrast_note(options.contrast, ring)])
        with span("back"):
            canvas, corner = windows.paste(kept)
            values, corner = resample_onto(canvas, corner, line.grid, native)
            if not options.soft:
                values = (values > 0.5).astype(np.float32)
            self._check_found(values, found.detector)
            cleaned = clean_volume(
                values,
                native.zooms,
                first_slice=corner[2],
                support=self._soft_support if options.soft else 0.0,
                quirks=options.quirks,
            )
            notes += cleaned.notes
            mask = self._place(cleaned.values, corner, native).reoriented(prepared.grid.axcodes)
        with span("quality"):
            quality = assess(
                mask,
                centerline=line,
                windows=windows,
                probabilities=probabilities,
                kept=kept,
                threshold=self.threshold,
            )
        ran = {"segment": loaded} if found.network is None else {"detect": found.network, "segment": loaded}
        return Segmentation(
            mask=mask,
            centerline=line,
            detector=found.detector,
            threshold=self.threshold,
            notes=tuple(notes),
            engines={step: each.engine.name for step, each in ran.items()},
            networks={step: (each.network.name, each.network.sha256) for step, each in ran.items()},
            quality=quality,
            seconds={},
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

    def _ask(self, crops: NDArray[np.float32], windows: CropWindows, zero: float) -> Question:
        network = self._opened().network
        if network.role is Role.SEGMENT_3D:
            return ask_blocks(crops, windows.z, windows.grid.shape[2], network, empty=zero)
        if self._asks_about_nothing:
            crops = np.concatenate([crops, np.full((1, *crops.shape[1:]), zero, np.float32)])
        return ask_slices(crops, network)

    @property
    def _asks_about_nothing(self) -> bool:
        """Whether an empty slice is run too, because its answer steers the clean-up."""
        is_3d = self._opened().network.role is Role.SEGMENT_3D
        return self.options.quirks.empty_slices_steer and not is_3d and not self.options.soft

    def _confirms(self, probabilities: NDArray[np.float32]) -> bool:
        """Whether a centerline that only the second detector saw has cord on most of its slices.

        HOG + SVM draws a curve through whatever it is given.
        """
        return float((probabilities > self.threshold).any((1, 2)).mean()) >= 0.5

    def _clean(
        self, probabilities: NDArray[np.float32], prepared: Prepared, blank: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        if self.options.soft:
            return probabilities
        windows = prepared.windows
        n_slices = windows.grid.shape[2]
        kept = clean_slices(probabilities, windows.z, self.threshold, n_slices=n_slices, empty_slice=blank)
        self._check_found(kept, prepared.found.detector)
        return kept

    @property
    def _soft_support(self) -> float:
        return 0.0 if self.options.quirks.soft_is_all_cord else self.threshold

    def _check_found(self, values: NDArray[np.float32], detector: str) -> None:
        support = 0.0
        if self.options.soft and not self.options.quirks.soft_of_nothing:
            support = self.threshold
        if not (values > support).any():
            contrast = self.options.contrast
            given = contrast != ANY_CONTRAST
            if detector == "file":
                also = f", and whether the contrast is {contrast}" if given else ""
                raise CordNotFound(
                    "no spinal cord was found along the given centerline; see whether it lies on the "
                    f"cord{also}"
                )
            remedy = f" with contrast {contrast}; check the contrast, the" if given else "; check the"
            raise CordNotFound(
                f"no spinal cord was found{remedy} field of view, or give a centerline "
                "(--centerline viewer or file)"
            )

    def _place(self, values: NDArray[np.float32], corner: tuple[int, int, int], native: Grid) -> Volume:
        (x, y, z), (nz, nx, ny) = corner, values.shape
        whole = np.zeros(native.shape, np.float32 if self.options.soft else np.uint8)
        whole[x : x + nx, y : y + ny, z : z + nz] = values.transpose(1, 2, 0)
        return Volume(whole, native)
