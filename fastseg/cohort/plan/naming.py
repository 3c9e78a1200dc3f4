"""Names of results in data sets.

========== ======================================== ================================
scheme     sub-01_acq-a_T2w.nii.gz becomes          other volumes
========== ======================================== ================================
sct        sub-01_acq-a_T2w_seg.nii.gz              ``t2_seg.nii.gz``
neuropoly  sub-01_acq-a_T2w_label-SC_seg.nii.gz     ``t2_label-SC_seg.nii.gz``
bids       sub-01_acq-a_label-SC_desc-T2w_mask.nii.gz  refused
========== ======================================== ================================

NeuroPoly's names keep the name of the image whole, so that nobody has to parse it. In BIDS the suffix says
what a file is, so that of the image has to go elsewhere: T1w and T2w would be one file otherwise.

Points that are drawn by hand lie beside the mask: ``t2_points.json``, ``sub-01_T2w_label-SC_points.json``,
``sub-01_label-centerline_desc-T2w_points.json`` (`fastseg.outputs.points_name`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Literal

from fastseg.errors import OptionError
from fastseg.outputs import Outputs, Tails

__all__ = ["Scheme", "name_outputs", "split_bids"]

Scheme = Literal["sct", "neuropoly", "bids"]

_BIDS_NAME = re.compile(r"(?P<entities>sub-[^_]+(?:_[A-Za-z0-9]+-[^_]+)*)_(?P<suffix>[A-Za-z0-9]+)")


def name_outputs(scheme: Scheme, folder: Path, stem: str, *, soft: bool = False) -> Outputs:
    """Name the results of one volume.

    Parameters
    ----------
    scheme : of the names
    folder : of the results
    stem : of the volume's file name, without .nii or .nii.gz
    soft : whether the name has to tell that the result is soft

    Raises
    ------
    OptionError
        The scheme is ``bids``, and the name is not.

    Examples
    --------
    >>> name_outputs("neuropoly", Path("out"), "sub-01_T2w", soft=True).mask.name
    'sub-01_T2w_label-SC_softseg.nii.gz'
    >>> name_outputs("bids", Path("out"), "sub-01_acq-a_T2w").names(("mask", "sidecar", "centerline"))[::2]
    ['sub-01_acq-a_label-SC_desc-T2w_mask.nii.gz', 'sub-01_acq-a_label-centerline_desc-T2w_mask.nii.gz']
    """
    if scheme == "sct":
        return Outputs(folder, stem, _flat_tails("", soft))
    if scheme == "neuropoly":
        return Outputs(folder, stem, _flat_tails("_label-SC", soft))
    parts = split_bids(stem)
    if parts is None:
        raise OptionError(
            f"{stem}: is no BIDS name (sub-<label>_..._<suffix>); choose naming sct or neuropoly"
        )
    entities, suffix = parts
    # What follows label and desc in no valid name may stand in that of a derivative.
    kept, described = [], ""
    for entity in entities.split("_"):
        key, _, value = entity.partition("-")
        if key in ("label", "desc"):
            described += value
        else:
            kept.append(entity)
    described = "".join(each for each in described if each.isalnum())
    return Outputs(folder, "_".join(kept), _strict_tails(described + suffix, soft))


def split_bids(stem: str) -> tuple[str, str] | None:
    """Entities and suffix of a BIDS name without its extension; None for any other name.

    Examples
    --------
    >>> split_bids("sub-01_ses-a_T2w"), split_bids("sub-01"), split_bids("t2_seg")
    (('sub-01_ses-a', 'T2w'), None, None)
    """
    found = _BIDS_NAME.fullmatch(stem)
    return (found["entities"], found["suffix"]) if found else None


@lru_cache
def _flat_tails(label: str, soft: bool) -> Tails:
    mask = f"{label}_softseg" if soft else f"{label}_seg"
    return Tails(
        mask=f"{mask}.nii.gz",
        sidecar=f"{mask}.json",
        centerline=f"{label}_centerline.nii.gz",
        overlay=f"{label}_overlay.png",
        csa=f"{label}_csa.tsv",
    )


@lru_cache
def _strict_tails(described: str, soft: bool) -> Tails:
    cord, line = f"_label-SC_desc-{described}", f"_label-centerline_desc-{described}"
    mask = f"{cord}_probseg" if soft else f"{cord}_mask"
    return Tails(
        mask=f"{mask}.nii.gz",
        sidecar=f"{mask}.json",
        centerline=f"{line}_mask.nii.gz",
        overlay=f"{cord}_overlay.png",
        csa=f"{cord}_csa.tsv",
    )
