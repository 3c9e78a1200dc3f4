"""The command line of tools/make_cohort."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastseg.errors import FastsegError
from tools.cohort.making import make_cohort
from tools.cohort.sources import KINDS, default_data

_CHECKOUT = Path(__file__).resolve().parents[2]
_DESCRIPTION = """\
Write a cohort of NIfTI files to try things on: real volumes of ../shared/data and phantoms, each time with
other noise, a few voxels cut off, and the axes in another order, so that no two are equal. They are for
timing: what a method scores on them says nothing about its accuracy.

  tools/make_cohort --out DIR                            200 volumes, sizes mixed
  tools/make_cohort --out DIR --kind small --volumes 1000
  tools/make_cohort --out DIR --kind phantoms --bids     a BIDS data set without any real volume

mix       of twenty: eleven of 40 x 42 x 5 to 42 x 76 x 77, five of few large axial slices, three of half a
          spine at 1 mm, one phantom of 320 x 320 x 60
small     the first kind only, the size of the volumes of sct_testing
phantoms  sizes as in mix, phantoms only

Equal arguments give equal files. A row about each goes to stdout.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a cohort.

    Returns
    -------
    code : 0; 2 where it cannot be made
    """
    parser = argparse.ArgumentParser(
        prog="tools/make_cohort",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="new or empty folder")
    parser.add_argument("--volumes", metavar="N", type=int, default=200, help="how many (200)")
    parser.add_argument("--kind", choices=KINDS, default="mix", help="see above (mix)")
    parser.add_argument("--bids", action="store_true", help="as a BIDS data set, a participant a volume")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="another cohort (0)")
    parser.add_argument(
        "--data", metavar="DIR", type=Path, default=default_data(), help="folder with the real volumes"
    )
    options = parser.parse_args(arguments)
    out: Path = options.out
    if options.volumes < 1 or options.seed < 0:
        parser.error("--volumes is at least 1, --seed at least 0")
    if out.resolve().is_relative_to(_CHECKOUT):
        parser.error(f"{out} is in the checkout, which real volumes must not get into: choose another --out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        parser.error(f"{out} is there and not an empty folder: choose another --out")
    if options.kind != "phantoms" and not options.data.is_dir():
        print(f"{options.data} is not there: phantoms stand in for real volumes", file=sys.stderr)
    try:
        print("volume", "made_of", "shape", "mm", "axes", sep="\t")
        for made in make_cohort(
            out, options.kind, options.volumes, seed=options.seed, data=options.data, bids=options.bids
        ):
            shape = " x ".join(map(str, made.grid.shape))
            zooms = " x ".join(f"{zoom:.3g}" for zoom in made.grid.zooms)
            print(made.path, made.origin, shape, zooms, "".join(made.grid.axcodes), sep="\t")
    except (FastsegError, OSError) as error:
        print(f"tools/make_cohort: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
