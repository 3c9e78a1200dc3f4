"""How long a run will take on this machine, from a few phantoms that are segmented on it now."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fastseg.engines.compute import AUTO, Compute
from fastseg.networks.network import ANY_CONTRAST
from fastseg.nifti import VolumeFacts, new_template, probe_volume, read_volume, write_volume
from fastseg.options import Options
from fastseg.phantom import make_phantom
from fastseg.segmenter import Segmenter
from fastseg.volume import SCT_RPI

__all__ = ["Speed", "measure_speed"]

# Side in mm, and slices, of the phantoms. The first is segmented twice: what is made ready with the first
# volume does not count.
_PHANTOMS = ((64, 8), (64, 40), (192, 24))
# The detector of whole slices looks at one every so many mm.
_DETECTED_MM = 3.0


@dataclass(frozen=True, slots=True)
class Speed:
    """CPU seconds that volumes take on this machine, from file to file.

    Parameters
    ----------
    per_volume : whatever its size
    per_slice : axial; the network that segments looks at a window of each
    per_mm2 : axial area of each slice at which the detector looks, one every 3 mm
    """

    per_volume: float
    per_slice: float
    per_mm2: float

    def cpu_seconds(self, facts: VolumeFacts) -> float:
        """CPU seconds that a volume will take."""
        slices, area = _size(facts)
        return self.per_volume + self.per_slice * slices + self.per_mm2 * area

    def seconds(self, volumes: Iterable[VolumeFacts], cores: int) -> float:
        """Wall time for volumes when so many cores are always busy with them."""
        each = [self.cpu_seconds(facts) for facts in volumes]
        return max(sum(each) / cores, max(each, default=0.0))


def measure_speed(options: Options, *, models: str | Path = "default", compute: Compute = AUTO) -> Speed:
    """Segment a few phantoms, from file to file, and see what a slice and its size cost.

    Takes about a second. It is an estimate: 20 real volumes took 0.8 to 1.4 times what it says, all together
    1.15 times, with the 2D network on a CPU. Where the second detector is needed it takes longer.

    Parameters
    ----------
    options : of the run
    models, compute : see `fastseg.Segmenter`

    Raises
    ------
    NetworkError, EngineError
        As `fastseg.Segmenter` raises them.
    """
    rows, seconds = [], []
    with (
        tempfile.TemporaryDirectory(prefix="fastseg-") as folder,
        Segmenter(options, models=models, compute=compute) as segmenter,
    ):
        path = Path(folder) / "phantom.nii.gz"
        for n, (side, n_slices) in enumerate((_PHANTOMS[0], *_PHANTOMS)):
            contrast = "t2" if options.contrast == ANY_CONTRAST else options.contrast
            image, _ = make_phantom(contrast, shape=(side, side), n_slices=n_slices)
            write_volume(image.voxels, new_template(image.grid), path)
            size = _size(probe_volume(path))
            began = time.process_time()
            volume, template = read_volume(path)
            write_volume(segmenter.segment(volume).mask.voxels, template, path)
            if n:
                rows.append(size)
                seconds.append(time.process_time() - began)
    return _line_through(rows, seconds)


def _size(facts: VolumeFacts) -> tuple[int, float]:
    """Axial slices, and the area in mm2 of those at which the detector looks."""
    grid = facts.grid.reoriented(SCT_RPI)
    (nx, ny, n_slices), (x_mm, y_mm, z_mm) = grid.shape, grid.zooms
    return n_slices, nx * x_mm * ny * y_mm * min(n_slices, max(n_slices * z_mm / _DETECTED_MM, 1.0))


def _line_through(sizes: list[tuple[int, float]], seconds: list[float]) -> Speed:
    """Costs from two volumes of one area a slice and a third of another; noise must make none negative."""
    (few, small), (many, _), (slices, large) = sizes
    quick, longer, larger = seconds
    of_slice = max((longer - quick) / (many - few), 0.0)  # with the area of small slices
    of_volume = max(quick - of_slice * few, 0.0)
    more_area = large - slices * small / few
    per_mm2 = max((larger - of_volume - of_slice * slices) / more_area, 0.0)
    return Speed(of_volume, max(of_slice - per_mm2 * small / few, 0.0), per_mm2)
