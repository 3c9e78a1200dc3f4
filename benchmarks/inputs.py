"""What benchmarks work on: real volumes where they are, phantoms of the same size where they are not."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fastseg.volume import Volume

__all__ = ["DATA", "VOLUMES", "Inputs", "Sample"]

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True, slots=True)
class Sample:
    """A volume, and the phantom that stands in for it.

    Parameters
    ----------
    contrast : t1, t2, t2s or dwi
    path : below the data folder; empty for what is always a phantom
    centerline : below the parity folder beside the data folder
    shape : voxels from side to side, back to front, and along the body
    zooms : of these axes, mm
    axcodes : order of the axes in the file
    """

    contrast: str
    path: str
    centerline: str
    shape: tuple[int, int, int]
    zooms: tuple[float, float, float]
    axcodes: tuple[str, str, str]


VOLUMES = {
    "t2": Sample(
        "t2",
        "sct_testing/t2/t2.nii.gz",
        "golden/dev/t2/t2_centerline.nii.gz",
        (52, 60, 55),
        (1, 1, 1),
        ("P", "S", "R"),
    ),
    "lumbar": Sample(
        "t2",
        "sub-tutlumbar/anat/sub-tutlumbar_T2w.nii.gz",
        "golden/dev/tutlumbar/tutlumbar_centerline.nii.gz",
        (38, 257, 201),
        (1, 1, 1),
        ("R", "A", "S"),
    ),
    "gm9418": Sample(
        "t2s",
        "sub-gm9418/anat/sub-gm9418_T2star.nii.gz",
        "golden/dev/gm9418/gm9418_centerline.nii.gz",
        (384, 384, 17),
        (0.5, 0.5, 3.0),
        ("L", "A", "S"),
    ),
    # 64 sagittal slices of 320 x 320: the largest size that is usual for one region of the spine.
    "large": Sample("t2", "", "", (64, 320, 320), (0.8, 0.8, 0.8), ("P", "S", "R")),
}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files for the cases of one run.

    Parameters
    ----------
    data : folder with real volumes; it need not be there
    work : folder for phantoms and packs, shared by the cases of a run
    """

    data: Path
    work: Path

    def volume(self, name: str) -> tuple[Path, str]:
        """File of a volume, and what to call it."""
        sample = VOLUMES[name]
        path = self.data / sample.path
        if sample.path and path.is_file():
            return path, path.name
        size = " x ".join(map(str, sample.shape))
        return self._phantom(name)[0], f"phantom {size}, {sample.zooms[0]} x {sample.zooms[2]} mm"

    def centerline(self, name: str) -> Path:
        """File of a centerline on that volume, or of a mask."""
        sample = VOLUMES[name]
        path = self.data.parent / "parity" / sample.centerline
        if sample.path and (self.data / sample.path).is_file() and path.is_file():
            return path
        return self._phantom(name)[1]

    def slices(self, name: str) -> tuple[NDArray[np.float32], str]:
        """Voxels as (z, x, y) in SCT's axis order, and what to call them."""
        from fastseg.nifti import read_volume
        from fastseg.resampling import as_slices
        from fastseg.volume import SCT_RPI

        path, origin = self.volume(name)
        return as_slices(read_volume(path)[0].reoriented(SCT_RPI)), origin

    def sct_pack(self) -> tuple[Path, str]:
        """Pack with support vector machines, and what to call it.

        SCT's own SVMs with the stand-in networks of the parity tests, where both are there: sizes and speed
        are like those of SCT's networks, masks are for tests only. Elsewhere the built-in networks, and
        random coefficients, which find no cord but take as long.
        """
        folder = self.work / "packs" / "bench"
        svms, networks = self.data / "sct_optic_models", self.data.parent / "parity" / "models"
        real = svms.is_dir() and networks.is_dir()
        if not folder.is_dir():
            if real:
                _import(folder, [*svms.glob("*.yml"), *networks.glob("*.onnx")])
            else:
                _make_up(folder)
        if real:
            return folder, "SCT's SVM, stand-in networks"
        return folder, "random SVM, built-in networks"

    def detector(self, contrast: str = "t2") -> NDArray[np.float32]:
        """Coefficients of a contrast's SVM; random ones where SCT's are not there."""
        from fastseg.networks.sct import read_opencv_svm

        path = self.data / "sct_optic_models" / f"{contrast}_model.yml"
        return read_opencv_svm(path.read_bytes()) if path.is_file() else random_detector()

    def _phantom(self, name: str) -> tuple[Path, Path]:
        image_path, mask_path = self.work / f"{name}.nii.gz", self.work / f"{name}_mask.nii.gz"
        if not mask_path.is_file():
            from fastseg.phantom import make_phantom

            sample = VOLUMES[name]
            nx, ny, nz = sample.shape
            image, mask = make_phantom(
                sample.contrast, shape=(nx, ny), n_slices=nz, zooms=sample.zooms, axcodes=sample.axcodes
            )
            _save(image, image_path)
            _save(mask, mask_path)
        return image_path, mask_path


def random_detector() -> NDArray[np.float32]:
    """577 coefficients that find nothing."""
    return np.random.default_rng(3).normal(0, 0.05, 577).astype(np.float32)


def _save(volume: Volume, path: Path) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(volume.voxels, volume.grid.affine), path)


def _import(folder: Path, files: list[Path]) -> None:
    from fastseg.networks.sct import import_sct

    flat = folder.parent / "from-sct"
    flat.mkdir(parents=True)
    for file in files:
        shutil.copy(file, flat / file.name)
    os.environ["FASTSEG_PACKS"] = str(folder.parent)
    import_sct(flat, folder.name)


def _make_up(folder: Path) -> None:
    import hashlib

    from fastseg.networks.packs import find_pack

    shutil.copytree(find_pack("default").folder, folder)
    np.save(folder / "t2_svm.npy", random_detector())
    digest = hashlib.sha256((folder / "t2_svm.npy").read_bytes()).hexdigest()
    with (folder / "pack.toml").open("a") as toml:
        for contrast in ("t2", "t2s"):
            toml.write(
                f'\n[[svm]]\nfile = "t2_svm.npy"\nsha256 = "{digest}"\ncontrast = "{contrast}"\n'
                'source = "random numbers, for timing"\nlicence = "MIT"\n'
            )
