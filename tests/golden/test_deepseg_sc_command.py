"""fastseg deepseg-sc, called as SCT was called for its command-line goldens."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastseg.cli import main
from tests.golden import parity

pytestmark = pytest.mark.golden

_CASES: dict[str, Any] = (
    json.loads((parity.PARITY / "golden/dev/cli/cli.json").read_text())["cases"]
    if parity.PARITY.is_dir()
    else {}
)
# SCT fails on this valid input.
_WORKS_HERE = {"single_slice"}


def _run(arguments: list[str], out: Path) -> int:
    given = [str(_path(word)) if "/" in word else word for word in arguments]
    with pytest.raises(SystemExit) as end:
        main(["deepseg-sc", *given, "--models", str(parity._pack("models")), "-ofolder", str(out)])
    return int(end.value.code or 0)


def _path(text: str) -> Path:
    return parity.SHARED.parent / text if text.startswith("shared/") else parity.PARITY / text


@pytest.mark.parametrize("name", [name for name, case in _CASES.items() if case["status"] == "ok"])
def test_what_sct_wrote_is_written(name: str, tmp_path: Path) -> None:
    case = _CASES[name]
    assert _run(case["args"], tmp_path) == 0
    (path,) = tmp_path.iterdir()
    assert path.name == f"{Path(case['args'][1]).name.removesuffix('.nii.gz')}_seg.nii.gz"
    ours, wanted = nib.load(path), case["output"]
    voxels = np.asanyarray(ours.dataobj)
    assert voxels.dtype == wanted["dtype"]
    if wanted["dtype"] == "uint8":
        assert hashlib.sha256(voxels.tobytes(order="C")).hexdigest() == wanted["sha256_voxels"]
    else:  # 23,814 voxels, each within 1e-5
        assert abs(float(voxels.sum(dtype=np.float64)) - wanted["sum"]) < 23814 * parity.SOFT_TOLERANCE
    assert ours.header["pixdim"].tolist() == wanted["pixdim"]
    for field in ("qform_code", "sform_code", "cal_max", "cal_min", "xyzt_units"):
        assert ours.header[field] == wanted[field], field
    assert ours.header["descrip"].item().decode() == wanted["descrip"]


@pytest.mark.parametrize("name", [name for name, case in _CASES.items() if case["status"] != "ok"])
def test_what_sct_refused_is_refused_in_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = _run(_CASES[name]["args"], tmp_path)
    if name in _WORKS_HERE:
        assert code == 0
        return
    assert code in (1, 2)
    assert "Traceback" not in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
