"""Finding the centerline of a volume: the detector, and what it needs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fastseg.centerline import Centerline
from fastseg.compilation import load_kernels
from fastseg.engines.base import Engine
from fastseg.engines.compute import AUTO, Compute
from fastseg.engines.select import Engines
from fastseg.errors import CordNotFound, OptionError
from fastseg.heatmap import locate_by_blocks, locate_by_slices, locate_by_svm
from fastseg.intensity import check_signal, finite_slices
from fastseg.networks.network import ANY_CONTRAST, Network, Role
from fastseg.networks.packs import Pack, find_pack, read_svm
from fastseg.options import Detector, Options
from fastseg.resampling import as_slices, working_grid
from fastseg.volume import SCT_RPI, Grid, Volume

__all__ = ["Found", "Loaded", "Locator"]

_DETECTION = (Role.DETECT_BLOCKS, Role.DETECT_SLICES)

# What found nothing, what found the centerline instead.
_FALLBACK_NOTES = {
    ("cnn", "svm"): "the network saw no cord; the centerline is that of HOG + SVM: look at it",
    ("svm", "cnn"): "HOG + SVM found no cord; the centerline is that of the network: look at it",
}


class Loaded(NamedTuple):
    """A network and the open engine that runs it."""

    network: Network
    engine: Engine


class Found(NamedTuple):
    """A centerline, and how it was found.

    Parameters
    ----------
    centerline : on the grid that `Locator.locate` or `Locator.trace` names
    detector : what found it: svm, cnn or file
    notes : what was noticed on the way, one sentence each
    network : the network that found it, if one did
    doubt : why the detector that was asked first found nothing, if that was another one
    """

    centerline: Centerline
    detector: Detector
    notes: tuple[str, ...] = ()
    network: Loaded | None = None
    doubt: CordNotFound | None = None


class Locator:
    """Finds the centerline of volumes with one set of options; what it needs is loaded once.

    With the detector ``auto``, the one that comes second is loaded when the first finds nothing.

    Parameters
    ----------
    options : what to do, the same for every volume
    models : name of a pack of networks, or a folder that holds one
    compute : what the network runs on
    engines : open engines to take and add to; they stay open. None: engines of its own.

    Raises
    ------
    NetworkError
        The pack is missing or damaged, or has no detector for the options.
    EngineError
        The engine cannot be opened.

    Examples
    --------
    >>> from fastseg.phantom import make_phantom
    >>> volume, _ = make_phantom("t2", n_slices=6)
    >>> with Locator(Options(contrast="t2")) as locator:
    ...     locator.locate(volume).points.shape
    (6, 3)
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
        self.pack: Pack = find_pack(models)
        self._shared = engines
        self._engines = engines or Engines(compute)
        self._opened = False
        self._lock = threading.Lock()
        self._coefficients: NDArray[np.float32] | None = None
        self._network: Loaded | None = None

    def __enter__(self) -> Self:
        try:
            if self.detector == "svm":
                self._svm()
            elif self.detector == "cnn":
                self._cnn()
        except BaseException:
            self._close()
            raise
        self._opened = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._shared is None:
            self._engines.__exit__(None, None, None)
        self._network = self._coefficients = None
        self._opened = False

    def load(self, role: Role) -> Loaded:
        """Open the pack's network for a role."""
        network = self.pack.network(role, self.options.contrast)
        return Loaded(network, self._engines.open(network))

    @property
    def detector(self) -> Detector:
        """What finds the centerline, or tries to first."""
        return self._detectors[0]

    @property
    def _detectors(self) -> tuple[Detector, ...]:
        if self.options.detector != "auto":
            return (self.options.detector,)
        there = self.pack.detectors(self.options.contrast)
        if there:
            return there
        # Loading either says what is missing; the one that the pack has for other contrasts says it better.
        any_svm = self.options.contrast == ANY_CONTRAST and self.pack.svm_models
        return ("svm",) if any_svm else ("cnn",)

    def locate(self, volume: Volume, centerline: Volume | None = None) -> Centerline:
        """Find the centerline of a volume.

        Parameters
        ----------
        volume : the image
        centerline : centerline or mask that was drawn on it, for the detector ``file``

        Returns
        -------
        centerline : on the working grid of 0.5 mm in plane; by svm, on the volume's own

        Raises
        ------
        InputError
            The volume is constant, or the centerline does not fit it.
        CordNotFound
            No cord was found, or the centerline is empty.

        Notes
        -----
        As in SCT, OptiC alone works on the volume as it is (sct_get_centerline), and before a segmentation
        on the 0.5 mm volume (sct_deepseg_sc).
        """
        return self.find(volume, centerline).centerline

    def find(self, volume: Volume, centerline: Volume | None = None) -> Found:
        """As `locate`, with what found the centerline and what there is to note."""
        native = volume.reoriented(SCT_RPI)

        def look(detector: Detector) -> Centerline:
            if detector == "svm" and centerline is None:
                check_signal(native.voxels)
                return locate_by_svm(as_slices(native), native.grid, self._svm())
            return self._look(detector, self.slices(native), native.grid, centerline)

        return self._in_turn(look)

    def slices(self, native: Volume) -> NDArray[np.float32]:
        """Voxels of a volume in SCT_RPI as slices (z, x, y), with something in them to see."""
        if self.options.quirks.nan_poisons:
            return as_slices(native)
        check_signal(native.voxels)
        return finite_slices(as_slices(native))

    def trace(self, slices: NDArray[np.float32], native: Grid, given: Volume | None) -> Found:
        """As `find`, from the slices of a volume in SCT_RPI and their grid; always on the working grid."""
        return self._in_turn(lambda detector: self._look(detector, slices, native, given))

    def _in_turn(self, look: Callable[[Detector], Centerline]) -> Found:
        """Ask one detector after the other until one finds something."""
        if not self._opened:
            raise OptionError("the detector is closed: use it in a with block")
        first, *others = self._detectors
        try:
            return self._found(look(first), first)
        except CordNotFound as doubt:
            for other in others:
                with suppress(CordNotFound):
                    found = self._found(look(other), other)
                    return found._replace(notes=(_FALLBACK_NOTES[first, other],), doubt=doubt)
            raise

    def _found(self, line: Centerline, detector: Detector) -> Found:
        return Found(line, detector, network=self._network if detector == "cnn" else None)

    def _look(
        self, detector: Detector, slices: NDArray[np.float32], native: Grid, given: Volume | None
    ) -> Centerline:
        if detector == "file":
            return self._from_file(given, native)
        if given is not None:
            raise OptionError(f"a centerline was given, but the detector is {detector!r}: choose 'file'")
        working = working_grid(native)
        if detector == "svm":
            return locate_by_svm(slices, working, self._svm())
        network, engine = self._cnn()
        if network.role is Role.DETECT_SLICES:
            threshold = network.thresholds[self.options.contrast]
            return locate_by_slices(slices, native, network, engine, threshold).on(working)
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

    def _svm(self) -> NDArray[np.float32]:
        with self._lock:
            if self._coefficients is None:
                coefficients = read_svm(self.pack.svm(self.options.contrast))
                load_kernels()  # those of HOG are not there yet when the svm was not expected to run
                self._coefficients = coefficients
            return self._coefficients

    def _cnn(self) -> Loaded:
        with self._lock:
            if self._network is None:
                roles = [n.role for n in self.pack.networks if n.role in _DETECTION]
                there = [role for role in _DETECTION if self.pack.has(role, self.options.contrast)]
                self._network = self.load([*there, *roles, Role.DETECT_SLICES][0])
            return self._network

    def _from_file(self, given: Volume | None, native: Grid) -> Centerline:
        if given is None:
            raise OptionError("the detector is 'file', but no centerline was given")
        from fastseg.centerline_file import centerline_from_mask, centerline_from_volume  # brings scipy

        working = working_grid(native)
        if self.options.quirks.centerline_by_index:
            return centerline_from_mask(given.reoriented(SCT_RPI), working)
        return centerline_from_volume(given, native, working)
