"""Finding the centerline of a volume: the detector, and what it needs."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fastseg.centerline import Centerline
from fastseg.engines.base import Engine
from fastseg.engines.select import open_engine
from fastseg.errors import OptionError
from fastseg.heatmap import locate_by_blocks, locate_by_slices, locate_by_svm
from fastseg.intensity import check_signal, finite_slices
from fastseg.networks.network import Network, Role
from fastseg.networks.packs import Pack, find_pack, read_svm
from fastseg.options import Detector, Options
from fastseg.resampling import as_slices, working_grid
from fastseg.volume import SCT_RPI, Grid, Volume

__all__ = ["Loaded", "Locator"]


class Loaded(NamedTuple):
    """A network and the open engine that runs it."""

    network: Network
    engine: Engine


class Locator:
    """Finds the centerline of volumes with one set of options; its network is loaded once.

    Parameters
    ----------
    options : what to do, the same for every volume
    models : name of a pack of networks, or a folder that holds one
    backend : engine to run the network with
    threads : threads inside one inference. Results do not depend on it.

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
        self, options: Options, *, models: str | Path = "default", backend: str = "auto", threads: int = 1
    ) -> None:
        self.options = options
        self.pack: Pack = find_pack(models)
        self._open_engine = partial(open_engine, backend=backend, threads=threads)
        self._stack = ExitStack()
        self._opened = False
        self._coefficients: NDArray[np.float32] | None = None
        #: The detection network while the locator is open, if it uses one.
        self.loaded: Loaded | None = None

    def __enter__(self) -> Self:
        contrast = self.options.contrast
        if self.detector == "svm":
            self._coefficients = read_svm(self.pack.svm(contrast))
        elif self.detector == "cnn":
            blocks = self.pack.has(Role.DETECT_BLOCKS, contrast)
            self.loaded = self.load(Role.DETECT_BLOCKS if blocks else Role.DETECT_SLICES, self._stack)
        self._opened = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self.loaded = self._coefficients = None
        self._opened = False

    def load(self, role: Role, stack: ExitStack) -> Loaded:
        """Open the pack's network for a role; the stack closes it."""
        network = self.pack.network(role, self.options.contrast)
        return Loaded(network, stack.enter_context(self._open_engine(network)))

    @property
    def detector(self) -> Detector:
        """What finds the centerline."""
        if self.options.detector is not None:
            return self.options.detector
        return "svm" if self.pack.has_svm(self.options.contrast) else "cnn"

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
        native = volume.reoriented(SCT_RPI)
        if self._coefficients is not None and centerline is None:
            check_signal(native.voxels)
            return locate_by_svm(as_slices(native), native.grid, self._coefficients)
        return self.trace(self.slices(native), native.grid, centerline)

    def slices(self, native: Volume) -> NDArray[np.float32]:
        """Voxels of a volume in SCT_RPI as slices (z, x, y), with something in them to see."""
        if self.options.quirks.nan_poisons:
            return as_slices(native)
        check_signal(native.voxels)
        return finite_slices(as_slices(native))

    def trace(self, slices: NDArray[np.float32], native: Grid, given: Volume | None) -> Centerline:
        """As `locate`, from the slices of a volume in SCT_RPI and their grid."""
        if not self._opened:
            raise OptionError("the detector is closed: use it in a with block")
        if self.detector == "file":
            return self._from_file(given, native)
        if given is not None:
            raise OptionError(f"a centerline was given, but the detector is {self.detector!r}: choose 'file'")
        working = working_grid(native)
        if self._coefficients is not None:
            return locate_by_svm(slices, working, self._coefficients)
        assert self.loaded is not None
        network, engine = self.loaded
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

    def _from_file(self, given: Volume | None, native: Grid) -> Centerline:
        if given is None:
            raise OptionError("the detector is 'file', but no centerline was given")
        from fastseg.centerline_file import centerline_from_mask, centerline_from_volume  # brings scipy

        working = working_grid(native)
        if self.options.quirks.centerline_by_index:
            return centerline_from_mask(given.reoriented(SCT_RPI), working)
        return centerline_from_volume(given, native, working)
