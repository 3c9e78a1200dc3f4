"""One volume through all steps. Reads like the Methods section of Gros et al. 2019."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fastseg.centerline import Centerline
from fastseg.cleanup import clean_slices, clean_volume
from fastseg.crops import CropWindows
from fastseg.engines.base import Engine
from fastseg.engines.select import open_engine
from fastseg.errors import CordNotFound, OptionError
from fastseg.heatmap import locate_by_blocks, locate_by_slices, locate_by_svm
from fastseg.intensity import check_signal, finite_slices, rescale_percentiles
from fastseg.networks.network import CONTRASTS, Network, Role
from fastseg.networks.packs import Pack, find_pack, read_svm
from fastseg.prediction import predict_blocks, predict_slices
from fastseg.profiling import recording, span
from fastseg.quality import contrast_note, ring_contrast
from fastseg.quirks import MENDED, Quirks
from fastseg.resampling import as_slices, resample_onto, working_grid
from fastseg.volume import SCT_RPI, Grid, Volume

__all__ = ["Detector", "Kernel", "Options", "Segmentation", "Segmenter"]

_CLOSED = "the Segmenter is closed: use it in a with block"

Kernel = Literal["2d", "3d"]
Detector = Literal["svm", "cnn", "file"]


@dataclass(frozen=True, slots=True)
class Options:
    """What to do with a volume.

    Parameters
    ----------
    contrast : t1, t2, t2s or dwi
    kernel : network that works slice by slice, or on blocks of slices
    detector : how the centerline is found; None: svm where the pack has one for the contrast, else cnn
    threshold : probability above which a voxel is cord, 0 to 1; None: the network's own
    soft : give probabilities instead of a mask
    brain : whether the field of view may hold brain above the cord (cnn of SCT only); None: t1 and t2
    quirks : which of SCT's quirks to keep

    Raises
    ------
    OptionError
        An option is out of range, or two do not go together.
    """

    contrast: str
    kernel: Kernel = "2d"
    detector: Detector | None = None
    threshold: float | None = None
    soft: bool = False
    brain: bool | None = None
    quirks: Quirks = MENDED

    def __post_init__(self) -> None:
        if self.contrast not in CONTRASTS:
            raise OptionError(f"contrast {self.contrast!r}: choose one of {', '.join(CONTRASTS)}")
        if self.kernel not in ("2d", "3d"):
            raise OptionError(f"kernel {self.kernel!r}: choose 2d or 3d")
        if self.detector not in (None, "svm", "cnn", "file"):
            raise OptionError(f"centerline {self.detector!r}: choose svm, cnn or file")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise OptionError(f"threshold {self.threshold:g}: must lie between 0 and 1")
        if self.brain and self.detector == "svm":
            raise OptionError("brain is for the cnn detector only: leave it out, or choose centerline cnn")


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What came out of one volume.

    Parameters
    ----------
    mask : on the input's grid and in its orientation; uint8 0/1, or float32 0..1 for a soft result
    centerline : on the working grid
    detector : what found the centerline
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
        self._pack: Pack = find_pack(models)
        self._open_network = partial(open_engine, backend=backend, threads=threads)
        self._stack = ExitStack()
        self._segmenter: _Loaded | None = None
        self._detector: _Loaded | None = None
        self._coefficients: NDArray[np.float32] | None = None

    def __enter__(self) -> Self:
        options = self.options
        role = Role.SEGMENT_3D if options.kernel == "3d" else Role.SEGMENT_2D
        self._segmenter = self._load(self._pack.network(role, options.contrast))
        if self.detector == "svm":
            self._coefficients = read_svm(self._pack.svm(options.contrast))
        elif self.detector == "cnn":
            blocks = self._pack.has(Role.DETECT_BLOCKS, options.contrast)
            kind = Role.DETECT_BLOCKS if blocks else Role.DETECT_SLICES
            self._detector = self._load(self._pack.network(kind, options.contrast))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._segmenter = self._detector = self._coefficients = None

    @property
    def detector(self) -> Detector:
        """What finds the centerline when none is given."""
        if self.options.detector is not None:
            return self.options.detector
        return "svm" if self._pack.has_svm(self.options.contrast) else "cnn"

    @property
    def threshold(self) -> float:
        """Probability above which a voxel is cord."""
        if self.options.threshold is not None:
            return self.options.threshold
        return self._opened(self._segmenter).network.thresholds[self.options.contrast]

    def locate(self, volume: Volume, centerline: Volume | None = None) -> Centerline:
        """Find the centerline of a volume.

        Parameters
        ----------
        volume : the image
        centerline : centerline or mask that was drawn on it, for the detector ``file``

        Returns
        -------
        centerline : on the working grid of 0.5 mm in plane

        Raises
        ------
        InputError
            The volume is constant, or the centerline does not fit it.
        CordNotFound
            No cord was found, or the centerline is empty.
        """
        native = volume.reoriented(SCT_RPI)
        return self._trace(self._slices(native), native.grid, centerline)

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
        options, loaded = self.options, self._opened(self._segmenter)
        notes: list[str] = []
        with recording() as recorder:
            with span("prepare"):
                native = volume.reoriented(SCT_RPI)
                slices = self._slices(native)
            with span("centerline"):
                line = self._trace(slices, native.grid, centerline)
            with span("crop"):
                windows = CropWindows.around(line, loaded.network.spatial[0])
                crops, zero = self._rescaled(windows, slices)
            with span("predict"):
                probabilities = self._predict(crops, windows, zero)
            with span("clean"):
                kept = self._clean(probabilities, windows, zero)
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
        return Segmentation(
            mask=mask,
            centerline=line,
            detector=self.detector,
            threshold=self.threshold,
            notes=tuple(notes),
            engines={step: each.engine.name for step, each in self._all_loaded()},
            networks={step: (each.network.name, each.network.sha256) for step, each in self._all_loaded()},
            seconds=recorder.seconds(),
        )

    def _load(self, network: Network) -> _Loaded:
        return _Loaded(network, self._stack.enter_context(self._open_network(network)))

    def _opened(self, loaded: _Loaded | None) -> _Loaded:
        if loaded is None:
            raise OptionError(_CLOSED)
        return loaded

    def _all_loaded(self) -> Iterator[tuple[str, _Loaded]]:
        if self._detector is not None:
            yield "detect", self._detector
        if self._segmenter is not None:
            yield "segment", self._segmenter

    def _slices(self, native: Volume) -> NDArray[np.float32]:
        if self.options.quirks.nan_poisons:
            return as_slices(native)
        check_signal(native.voxels)
        return finite_slices(as_slices(native))

    def _trace(self, slices: NDArray[np.float32], native: Grid, given: Volume | None) -> Centerline:
        working = working_grid(native)
        if self.detector == "file":
            if given is None:
                raise OptionError("the detector is 'file', but no centerline was given")
            from fastseg.centerline_file import centerline_from_mask, centerline_from_volume  # brings scipy

            if self.options.quirks.centerline_by_index:
                return centerline_from_mask(given.reoriented(SCT_RPI), working)
            return centerline_from_volume(given, native, working)
        if given is not None:
            raise OptionError(f"a centerline was given, but the detector is {self.detector!r}: choose 'file'")
        if self.detector == "svm":
            if self._coefficients is None:
                raise OptionError(_CLOSED)
            return locate_by_svm(slices, working, self._coefficients)
        network, engine = self._opened(self._detector)
        if network.role is Role.DETECT_SLICES:
            return locate_by_slices(slices, native, network, engine).on(working)
        contrast, brain = self.options.contrast, self.options.brain
        return locate_by_blocks(
            slices,
            working,
            network,
            engine,
            contrast=contrast,
            brain=contrast in ("t1", "t2") if brain is None else brain,
            quirks=self.options.quirks,
        )

    def _rescaled(
        self, windows: CropWindows, slices: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float]:
        quirky = self.options.quirks.empty_slices_in_percentiles
        crops = windows.extract(slices)
        return rescale_percentiles(crops, zero_slices=len(slices) - len(crops) if quirky else 0)

    def _predict(self, crops: NDArray[np.float32], windows: CropWindows, zero: float) -> NDArray[np.float32]:
        network, engine = self._opened(self._segmenter)
        if network.role is Role.SEGMENT_3D:
            return predict_blocks(crops, windows.z, windows.grid.shape[2], network, engine, empty=zero)
        return predict_slices(crops, network, engine)

    def _clean(
        self, probabilities: NDArray[np.float32], windows: CropWindows, zero: float
    ) -> NDArray[np.float32]:
        if self.options.soft:
            return probabilities
        network, engine = self._opened(self._segmenter)
        n_slices, empty = windows.grid.shape[2], None
        if self.options.quirks.empty_slices_steer and network.role is Role.SEGMENT_2D:
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
            raise CordNotFound(
                f"no spinal cord was found with contrast {self.options.contrast}; check the contrast, the "
                "field of view, or give a centerline (--centerline file)"
            )

    def _place(self, values: NDArray[np.float32], corner: tuple[int, int, int], native: Volume) -> Volume:
        (x, y, z), (nz, nx, ny) = corner, values.shape
        whole = np.zeros(native.grid.shape, np.float32 if self.options.soft else np.uint8)
        whole[x : x + nx, y : y + ny, z : z + nz] = values.transpose(1, 2, 0)
        return Volume(whole, native.grid)


class _Loaded(NamedTuple):
    network: Network
    engine: Engine
