"""SCT's own results on 80 cases, and how ours compare with them: ``python -m tests.golden.parity``.

The goldens lie in ../shared/parity beside the checkout, with the stand-in networks that made them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from fastseg.errors import FastsegError
from fastseg.networks.sct import import_sct
from fastseg.nifti import read_volume, sct_header, write_volume
from fastseg.options import Options
from fastseg.quirks import MENDED, SCT_QUIRKS, Quirks
from fastseg.segmenter import Segmenter

SHARED = Path(__file__).resolve().parents[3] / "shared"
PARITY = SHARED / "parity"
#: Largest difference of a soft mask: that of the networks in another build of onnxruntime.
SOFT_TOLERANCE = 1e-5
# Fields of the header that SCT's output and ours must share.
_FIELDS = ("pixdim", "qform_code", "sform_code", "scl_slope", "scl_inter", "cal_max", "cal_min", "xyzt_units")


@dataclass(frozen=True)
class Golden:
    """One output of SCT.

    fragile : crop pixels whose probability lies within 1e-5 of the threshold; as many voxels may differ
    """

    case: str
    option: str
    image: Path
    centerline: Path
    contrast: str
    kernel: str
    threshold: float | None
    completed: bool
    exception: str
    output: Path
    record: Path
    fragile: int

    @property
    def name(self) -> str:
        return f"{self.case}-{self.option}"

    @property
    def soft(self) -> bool:
        return self.threshold == -1


@dataclass(frozen=True)
class Comparison:
    """What ours is against a golden: the error that was raised, or the difference."""

    error: str = ""
    voxels: int = 0
    different: int = 0
    largest: float = 0.0
    header: tuple[str, ...] = ()

    def agrees(self, golden: Golden) -> bool:
        """Whether this is SCT's result within the tolerances of the goldens' README."""
        if not golden.completed or self.error or self.header:
            return False
        return self.largest <= SOFT_TOLERANCE if golden.soft else self.different <= golden.fragile


def goldens() -> Iterator[Golden]:
    """All goldens, in the order of their index."""
    for entry in json.loads((PARITY / "golden/dev/index.json").read_text()):
        folder = PARITY / "golden/dev"
        yield Golden(
            case=entry["case"],
            option=entry["option"],
            image=_path(entry["input"], folder),
            centerline=_path(entry["centerline"], folder),
            contrast=entry["contrast"],
            kernel=entry["kernel"],
            threshold=entry["threshold_arg"],
            completed=entry["status"] == "ok",
            exception=entry["exception"] or "",
            output=folder / (entry["output"] or ""),
            record=folder / entry["json"],
            fragile=entry["fragile_prob_1e5"] or 0,
        )


def _path(text: str, folder: Path) -> Path:
    if text.startswith("shared/"):
        return SHARED.parent / text
    return PARITY / text if text.startswith("golden/") else folder / text


def compare(golden: Golden, quirks: Quirks, folder: Path) -> Comparison:
    """Segment the golden's input as it was made, write it into the folder, compare what was written."""
    options = Options(
        contrast=golden.contrast,
        kernel="3d" if golden.kernel == "3d" else "2d",
        detector="file",
        threshold=None if golden.soft else golden.threshold,
        soft=golden.soft,
        quirks=quirks,
    )
    pack = _pack("models_zctx" if golden.case.startswith("zctx") else "models")
    try:
        image, template = read_volume(golden.image)
        centerline, _ = read_volume(golden.centerline)
        with Segmenter(options, models=pack) as segmenter:
            result = segmenter.segment(image, centerline)
    except FastsegError as error:
        return Comparison(error=f"{type(error).__name__}: {error}")
    if quirks.header_codes_rewritten:
        template = sct_header(template, image.grid.affine)
    path = folder / f"{golden.name}.nii.gz"
    write_volume(result.mask.voxels, template, path)
    voxels = np.asanyarray(nib.load(path).dataobj)
    with gzip.open(path) as stream:  # nibabel.load blanks the scaling
        header = nib.Nifti1Header.from_fileobj(stream)
    path.unlink()
    if not golden.completed:
        return Comparison(voxels=int((voxels > 0.5).sum()))
    theirs = np.asanyarray(nib.load(golden.output).dataobj)
    return Comparison(
        voxels=int((theirs > 0.5).sum()),
        different=int(((voxels > 0.5) != (theirs > 0.5)).sum()),
        largest=float(np.abs(voxels.astype(np.float64) - theirs).max()),
        header=tuple(_header_differences(header, golden)) if quirks.header_codes_rewritten else (),
    )


def _header_differences(header: Any, golden: Golden) -> Iterator[str]:
    theirs = json.loads(golden.record.read_text())["output"]
    ours = {field: np.asarray(header[field], np.float64).tolist() for field in _FIELDS}
    ours["shape"] = list(header.get_data_shape())
    ours["srow"] = [header[f"srow_{axis}"].tolist() for axis in "xyz"]
    ours["quatern"] = [float(header[f"quatern_{part}"]) for part in "bcd"]
    if np.dot(ours["quatern"], theirs["quatern"][:3]) < 0:  # q and -q are the same rotation
        ours["quatern"] = [-part for part in ours["quatern"]]
    ours["quatern"] += [float(header[f"qoffset_{axis}"]) for axis in "xyz"]
    ours["descrip"] = header["descrip"].item().decode()
    ours["dtype"] = header.get_data_dtype().name
    ours["byteorder"] = {"<": "little", ">": "big"}[header.endianness]
    for field, value in ours.items():
        same = value == theirs[field]
        if field in ("srow", "quatern", "pixdim"):  # SCT turns the volume and back, in float32 files
            same = np.allclose(value, theirs[field], rtol=0, atol=1e-5)
        if not same:
            yield field


@cache
def _pack(name: str) -> Path:
    """The stand-in networks, imported as a user would import SCT's."""
    root = Path(tempfile.mkdtemp(prefix="fastseg-parity-"))
    before = os.environ.get("FASTSEG_PACKS")
    os.environ["FASTSEG_PACKS"] = str(root)
    try:
        return import_sct(PARITY / name, name).pack.folder
    finally:
        if before is None:
            del os.environ["FASTSEG_PACKS"]
        else:
            os.environ["FASTSEG_PACKS"] = before


def main() -> None:
    """Print the table of all goldens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mended", action="store_true", help="compare the default mode, with quirks mended")
    parser.add_argument("--only", default="", help="part of a golden's name")
    arguments = parser.parse_args()
    if not PARITY.is_dir():
        sys.exit("no ../shared/parity beside the checkout")
    agree = total = 0
    with tempfile.TemporaryDirectory() as folder:
        for golden in goldens():
            if arguments.only not in golden.name:
                continue
            ours = compare(golden, MENDED if arguments.mended else SCT_QUIRKS, Path(folder))
            total += golden.completed
            agree += ours.agrees(golden)
            print(f"{golden.name:42} {_row(golden, ours)}", flush=True)
    print(f"{agree} of {total} goldens that SCT completed are reproduced")


def _row(golden: Golden, ours: Comparison) -> str:
    if not golden.completed:
        return f"SCT {golden.exception}; ours {ours.error or f'{ours.voxels} voxels'}"
    if ours.error:
        return f"DIFFERS: {ours.error}"
    verdict = "same" if ours.agrees(golden) else "DIFFERS"
    header = f", header {', '.join(ours.header)}" if ours.header else ""
    return f"{verdict}: {ours.different} of {ours.voxels} voxels, largest {ours.largest:.1e}{header}"


if __name__ == "__main__":
    main()
