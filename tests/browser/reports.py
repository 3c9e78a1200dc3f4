"""Synthetic reports, straight in the layout of a report's folder."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

PAGE = Path(__file__).resolve().parents[2] / "fastseg" / "qc" / "page"
UUID = "4c1f0a52-0000-4000-8000-2b6d1a9e77aa"
TILE, COLUMNS, TILES, SIDE = 40, 6, 12, 56
Z_TOP = 59
LAYOUT = {
    "size": [SIDE + COLUMNS * TILE, 120],
    "mm_per_px": 0.5,
    "side": {"x": 0, "y": 0, "width": SIDE, "height": 120, "z_top": Z_TOP, "z_bottom": 0},
    "tiles": [
        {"z": 55 - 5 * index, "x": SIDE + index % COLUMNS * TILE, "y": index // COLUMNS * TILE}
        for index in range(TILES)
    ],
    "tile": TILE,
}
FLAGS = ("area_jump", "unsure", "touches_edge")


def script(value: object) -> str:
    """JSON that is inert in a script, as the report writes it."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def row(number: int, **changes: Any) -> dict[str, Any]:
    """Row of an index: every tenth volume is flagged, every fiftieth without a cord."""
    flagged, lost = number % 10 == 3, number % 50 == 7
    flags = list(FLAGS[: 1 + number % 3]) if flagged else []
    made = {
        "id": f"{number:016x}",
        "name": f"sub-{number:04d}/anat/sub-{number:04d}_T{1 + number % 2}w.nii.gz",
        "dataset": "site-a" if number % 4 else "site-b",
        "subject": f"sub-{number:04d}",
        "contrast": f"t{1 + number % 2}",
        "status": "no_cord" if lost else "ok_flagged" if flagged else "ok",
        "flags": flags,
        "severity": 100.0 if lost else len(flags) + number % 7 / 10 if flagged else 0.0,
        "message": "no spinal cord was found: give a centerline" if lost else "",
        "slices": None if lost else 40 + number % 20,
        "length_mm": None if lost else 120.5,
        "area_mm2": None if lost else 60 + number % 23 + 0.4,
        "seconds": 0.5 + number % 9 / 10,
        "engine": "onnxruntime fp32",
        "manual": False,
        "mask": "" if lost else f"{number:012x}",
        "pictures": True,
        "at": "2026-01-02T03:04:05+00:00",
    }
    return made | changes


def detail(of: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Detail that goes with a row."""
    flags: list[str] = list(of["flags"])
    made = {
        "sheet": LAYOUT,
        "areas": [] if not of["mask"] else [[z, 62.5 + z % 9] for z in range(Z_TOP + 1) if z != 31],
        "pitch_mm": 2.0,
        "flag_slices": {flag: [30, 32] if flag == "area_jump" else [5, 6, 7] for flag in flags},
        "reasons": {flag: f"{flag} from slice 30 to 32" for flag in flags},
        "notes": ["the name says T1w, the contrast given is t2: is that right?"] if flags else [],
        "measures": {"MedianAreaMm2": 66.5, "AreaJump": 0.6123456, "Objects": 1},
        "header": {"Kernel": "2d", "Seconds": {"read": "0.1", "infer": "0.3"}},
        "paths": {"image": "/data/it's here.nii.gz", "mask": "/out/m.nii.gz", "manual": "/out/m_man.nii.gz"},
        "commands": {
            "FSLeyes": "fsleyes '/data/t2.nii.gz' -cm red",
            "ITK-SNAP": "itksnap -g '/data/t2.nii.gz'",
        },
    }
    return made | changes


@cache
def pictures() -> dict[str, bytes]:
    """Sheet, outline and thumbnail of a striped volume with a round cord, by the ending of their files."""
    width, height = SIDE + COLUMNS * TILE, 120
    sheet = Image.new("L", (width, height), 12)
    outline = Image.new("RGBA", (2 * width, 2 * height))
    draw, line = ImageDraw.Draw(sheet), ImageDraw.Draw(outline)
    draw.rectangle((2, 0, SIDE - 2, height), 90)
    draw.rectangle((SIDE // 2 - 4, 0, SIDE // 2 + 4, height), 190)
    for index in range(TILES):
        x, y = SIDE + index % COLUMNS * TILE, index // COLUMNS * TILE
        draw.rectangle((x + 1, y + 1, x + TILE - 2, y + TILE - 2), 60 + 8 * index)
        draw.ellipse((x + 14, y + 15, x + 26, y + 25), 200)
        line.ellipse((2 * x + 28, 2 * y + 30, 2 * x + 52, 2 * y + 50), outline=(255, 150, 40, 255))
    files = {}
    for ending, picture in ((".jpg", sheet), (".png", outline), ("_thumb.jpg", sheet.resize((168, 56)))):
        content = io.BytesIO()
        picture.save(content, format="PNG" if ending == ".png" else "JPEG")
        files[ending] = content.getvalue()
    return files


def write(
    folder: Path,
    rows: Iterable[Mapping[str, Any]],
    *,
    marks: Iterable[Mapping[str, Any]] = (),
    details: Mapping[str, Mapping[str, Any]] | None = None,
    files: bool = True,
) -> str:
    """Write a report; the address of its page. Without ``files`` there is the index alone."""
    rows = list(rows)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "page").mkdir(exist_ok=True)
    for source in PAGE.iterdir():
        if not source.name.startswith("volume."):
            shutil.copy(source, folder if source.name == "index.html" else folder / "page")
    index = {
        "version": 1,
        "uuid": UUID,
        "made": "2026-01-02T03:04:05+00:00",
        "volumes": rows,
        "marks": list(marks),
    }
    (folder / "index.js").write_text(f"fastsegIndex({script(index)});\n", encoding="ascii")
    for each in rows if files else ():
        place = folder / "volumes" / each["id"][:2]
        place.mkdir(parents=True, exist_ok=True)
        told = (details or {}).get(each["id"]) or detail(each)
        text = f'fastsegDetail("{each["id"]}", {script(told)});\n'
        (place / f"{each['id']}.js").write_text(text, encoding="ascii")
        for ending, content in pictures().items():
            (place / f"{each['id']}{ending}").write_bytes(content)
    return (folder / "index.html").as_uri()
