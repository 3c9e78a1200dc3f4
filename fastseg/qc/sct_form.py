"""Volumes of a report in the JSON form of SCT's QC report.

SCT keeps one JSON file for each entry in the folder ``_json`` of its report, and makes its page from all of
them (threads of SCT's pull requests 2250 and 4439). Which fields an entry has is told by a public report that
SCT made, and by public threads:

- known, from the qc_results.json that the repository sct-pipeline/claudia holds (of SCT in 2018): ``cwd``,
  ``cmdline``, ``command``, ``subject``, ``contrast``, ``background_img`` and ``overlay_img`` (paths below the
  report's folder), ``moddate``, ``orientation``
- known, from issues 2197, 3253 and 5243 of SCT: ``dataset`` beside ``subject`` and ``contrast``, and that
  entries are marked with Pass, Fail and Artifact
- a guess: how newer versions spell the version, the image's file, the plane, the time and the marks:
  ``sct_version``, ``fname_in``, ``input_file``, ``plane``, ``date``, ``rank``, ``qc``. The older spellings
  are written beside them
- a guess: that a page lays the overlay over the background at the same size. Our outline has twice the
  sheet's pixels

No page of SCT's has been tried on them.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from fastseg import __version__

__all__ = ["sct_entry"]

# By its command SCT's page knows under which key of a YAML list an entry belongs: this one's is FILES_SEG.
_COMMAND = "sct_deepseg_sc"


def sct_entry(row: Mapping[str, Any], detail: Mapping[str, Any], pictures: str) -> dict[str, str]:
    """Describe a volume as SCT's report does.

    Parameters
    ----------
    row, detail : from `fastseg.qc.entry`
    pictures : path of the volume's pictures below the report's folder, without the ending
    """
    paths = detail.get("paths", {})
    image, mask = str(paths.get("image", "")), str(paths.get("mask", ""))
    moment = str(row["at"])[:19].replace("T", " ")
    drawn = bool(row["pictures"])
    return {
        "cwd": image.rpartition("/")[0],
        "cmdline": shlex.join(["fastseg", "run", image, "-c", row["contrast"], "-o", mask]),
        "command": _COMMAND,
        "sct_version": f"fastseg {__version__}",
        "dataset": row["dataset"],
        "subject": row["subject"],
        "contrast": row["contrast"],
        "fname_in": image,
        "input_file": image.rpartition("/")[2],
        "plane": "Axial",
        "orientation": "Axial",
        "background_img": f"{pictures}.jpg" if drawn else "",
        "overlay_img": f"{pictures}.png" if drawn else "",
        "date": moment,
        "moddate": moment,
        "rank": "",
        "qc": "",
    }
