"""A sheet of synthetic samples, to be compared with real crops: `tools/train/contact-sheet`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tools.train.synthesis.contrasts import KINDS
from tools.train.synthesis.samples import Samples, draw_samples

__all__ = ["main", "make_sheet"]

_COLUMNS, _GAP = 12, 2
_OUTLINE = (230, 70, 60)


def make_sheet(samples: Samples, rows_per_kind: int, columns: int = _COLUMNS) -> Image.Image:
    """Lay samples out: some rows for each kind of contrast, the mask's outline in red; front is up.

    Parameters
    ----------
    samples : as drawn; the middle slice of each is shown
    rows_per_kind : of `contrasts.KINDS`, in their order
    columns : samples in a row
    """
    side = samples.images.shape[-1]
    step = side + _GAP
    sheet = Image.new("RGB", (columns * step, len(KINDS) * rows_per_kind * step))
    middle = samples.images.shape[1] // 2
    for kind in range(len(KINDS)):
        chosen = np.flatnonzero(samples.kinds == kind)[: rows_per_kind * columns]
        for place, q in enumerate(chosen):
            row, column = divmod(place, columns)
            picture = Image.fromarray(_coloured(samples.images[q, middle], samples.masks[q, middle]))
            sheet.paste(picture, (column * step, (kind * rows_per_kind + row) * step))
    return sheet


def _coloured(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    inside = np.pad(mask > 125, 1)
    deep = inside[1:-1, 1:-1] & inside[2:, 1:-1] & inside[:-2, 1:-1] & inside[1:-1, 2:] & inside[1:-1, :-2]
    colours = np.repeat(image[..., None], 3, axis=2)
    colours[inside[1:-1, 1:-1] & ~deep] = _OUTLINE
    return np.ascontiguousarray(colours.transpose(1, 0, 2)[::-1])  # y, from posterior to anterior, goes up


def main() -> int:
    """Draw a sheet and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="PNG")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--whole", action="store_true", help="whole slices, instead of crops")
    parser.add_argument("--rows", type=int, default=2, help="for each contrast  [%(default)s]")
    options = parser.parse_args()
    n = 18 * options.rows * _COLUMNS  # the rarest contrast is every fourteenth sample
    make_sheet(draw_samples(n, options.seed, whole=options.whole, threads=2), options.rows).save(options.out)
    print(f"{options.out} written: rows of {', '.join(KINDS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
