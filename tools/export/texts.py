"""What the README.txt of an export says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastseg.networks.packs import Pack, pack_digest
from tools.export.folder import TITLE

__all__ = ["Exported", "readme"]


@dataclass(frozen=True, slots=True)
class Exported:
    """One file of an export.

    Parameters
    ----------
    name : path below the export's folder
    source : file of the pack that it was made from
    licence : of that file
    thresholds : the pack's threshold and SCT's that it falls on; empty for SVMs
    """

    name: str
    source: str
    licence: str
    thresholds: str


def readme(pack: Pack, files: Sequence[Exported], others: Sequence[str], version: str) -> str:
    """Write README.txt.

    Parameters
    ----------
    pack : what was exported
    files : what came out
    others : names of the other files beside them
    version : of fastseg
    """
    licences = dict.fromkeys(file.licence for file in files)
    width = max(len(file.name) for file in files)
    rows = "\n".join(
        f"  {file.name:<{width}}  {file.source}, {file.licence}"
        + (f", threshold {file.thresholds}" if file.thresholds else "")
        for file in files
    )
    passing_on = ""
    if any("not " in licence for licence in licences):
        passing_on = "\nA licence that is not stated or not known does not let you pass the files on."
    missing = _missing(files)
    return f"""{TITLE}
{"=" * len(TITLE)}

Pack {pack.name!r}, version {pack.version} ({pack.source}),
digest {pack_digest(pack)},
written by tools/export_sct of fastseg {version}. These are not SCT's networks, though they have the names of
SCT's files: say which ones you used when you report results.
Research software. Not a medical device, not for diagnosis or any clinical decision.

Licence: {"; ".join(licences)}.{passing_on}

Files
-----
{rows}
{"".join(f"  {name}{chr(10)}" for name in others)}
How to install
--------------
The data folder of SCT is usually $SCT_DIR/data.
1. Keep the old files:
     cp -r "$SCT_DIR/data/deepseg_sc_models" "$SCT_DIR/data/deepseg_sc_models.sct"
     cp -r "$SCT_DIR/data/optic_models" "$SCT_DIR/data/optic_models.sct"
2. Copy the new ones over them, from this folder:
     cp deepseg_sc_models/*.onnx "$SCT_DIR/data/deepseg_sc_models/"
     cp optic_models/*.yml "$SCT_DIR/data/optic_models/"        (where this folder has them)
3. Run sct_deepseg_sc as before. To go back, put the folders of step 1 in their place again.
fastseg runs the same files: fastseg models import --sct DIR --name NAME, then --models NAME.

{missing}
What differs
------------
- Thresholds. SCT has one for each contrast (t1 0.15, t2 0.7, t2s 0.89, dwi 0.01), and the pack has its own.
  The graphs move probabilities so that the pack's threshold falls on SCT's: with k the ratio of their odds, p
  becomes k p / (k p + 1 - p); 0 stays 0 and 1 stays 1. Masks at SCT's default threshold are those of the pack
  at its own. Soft results (-thr -1), and what other values of -thr mean, are on that moved scale.
- Intensities and axes are translated inside the graphs: SCT's mean and std are taken back, the pack's are
  done.
- *_ctr.onnx of a pack whose detector sees whole slices at 1 mm: it is given SCT's blocks of 40 x 40 mm, so it
  sees less than in fastseg. Its heat, a blob around the cord's centre, stands for the cord's probability; a
  heat of 0.2 falls on SCT's 0.5, whatever the pack's own threshold is.
- *_sc_3D.onnx of a pack whose network takes fewer pixels, or any depth, is given the part of SCT's block that
  it is made for; what lies around it is background. In t2s, SCT takes its percentiles from 96 x 96 pixels
  where fastseg takes them from 64 x 64, so 3D masks of t2s differ a little from fastseg's; volumes of more
  than 48 slices do too, because SCT's blocks do not overlap.
"""


def _missing(files: Sequence[Exported]) -> str:
    kinds = {"_ctr.onnx": "-centerline cnn", "_sc.onnx": "2D", "_sc_3D.onnx": "-kernel 3d",
             "_model.yml": "-centerline svm"}  # fmt: skip
    absent = [f"{use} (*{end})" for end, use in kinds.items() if not any(f.name.endswith(end) for f in files)]
    if not absent:
        return ""
    return f"Not in this pack: {', '.join(absent)}. There, SCT goes on using its own files.\n"
