"""Where a corrected mask belongs, and the exact commands that open it in an editor."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from fastseg.outputs import split_suffix

__all__ = ["commands", "manual_path"]

# Strict BIDS names have one desc, which holds the suffix of the image: T1w and T2w stay two files.
_STRICT = re.compile(r"(?P<before>.*_label-SC_desc-[A-Za-z0-9]+)(?P<after>_(?:mask|probseg))")
_FLAT = re.compile(r"(?P<before>.*)(?P<after>_(?:seg|softseg))")


def manual_path(mask: Path) -> Path:
    """Where the corrected version of a mask belongs: beside it, with "manual" in its description.

    Parameters
    ----------
    mask : as fastseg names it, by whatever scheme

    Examples
    --------
    >>> manual_path(Path("out/t2_seg.nii.gz")).as_posix()
    'out/t2_desc-manual_seg.nii.gz'
    >>> manual_path(Path("sub-01_T2w_label-SC_softseg.nii.gz")).name
    'sub-01_T2w_label-SC_desc-manual_softseg.nii.gz'
    >>> manual_path(Path("sub-01_label-SC_desc-T2w_mask.nii.gz")).name
    'sub-01_label-SC_desc-T2wManual_mask.nii.gz'
    >>> manual_path(Path("cord.nii")).name
    'cord_desc-manual_seg.nii'
    """
    stem, suffix = split_suffix(mask)
    if strict := _STRICT.fullmatch(stem):
        return mask.with_name(f"{strict['before']}Manual{strict['after']}{suffix}")
    if flat := _FLAT.fullmatch(stem):
        return mask.with_name(f"{flat['before']}_desc-manual{flat['after']}{suffix}")
    # A name that a run takes for a result, not for one more volume to segment.
    return mask.with_name(f"{stem}_desc-manual_seg{suffix}")


def commands(image: Path, mask: Path | None, manual: Path) -> dict[str, str]:
    """Commands for a POSIX shell that open a mask over its image, by the name of the editor.

    The mask is copied to where a corrected one belongs, unless one is there already; saving in the editor
    then overwrites the copy, and never what fastseg wrote. Where the copy fails, no editor is opened.

    Parameters
    ----------
    image : that was segmented
    mask : to correct, which may be `manual` itself; None where there is none: the image is opened, and a mask
        has to be drawn and saved as `manual`
    manual : from `manual_path`

    Examples
    --------
    >>> commands(Path("/d/t2.nii"), None, Path("/d/t2_desc-manual_seg.nii"))["ITK-SNAP"]
    'itksnap -g /d/t2.nii'
    >>> commands(Path("/d/t2.nii"), Path("/d/my seg.nii"), Path("/d/new.nii"))["FSLeyes"]
    "[ -e /d/new.nii ] || cp '/d/my seg.nii' /d/new.nii && fsleyes /d/t2.nii /d/new.nii -cm red -a 50"
    """
    shown = shlex.quote(str(image.absolute()))
    if mask is None:
        return {"FSLeyes": f"fsleyes {shown}", "ITK-SNAP": f"itksnap -g {shown}"}
    source, target = (shlex.quote(str(path.absolute())) for path in (mask, manual))
    # Not `cp -n`: what it answers where the file is there depends on its version.
    copy = f"[ -e {target} ] || cp {source} {target} && " if mask != manual else ""
    return {
        "FSLeyes": f"{copy}fsleyes {shown} {target} -cm red -a 50",
        "ITK-SNAP": f"{copy}itksnap -g {shown} -s {target}",
    }
