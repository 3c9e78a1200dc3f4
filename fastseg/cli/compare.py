"""fastseg compare: how two masks, or two trees of masks, differ."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastseg.cli import Exit

if TYPE_CHECKING:
    from fastseg.comparison import Difference, Pairs

__all__ = ["command"]

_Row = tuple[str, "Difference | str"]


@click.command("compare")
@click.argument("a", type=click.Path(exists=True, path_type=Path))
@click.argument("b", type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@click.option("--threshold", default=0.5, show_default=True, help="Value above which a voxel is cord.")
@click.option("--suffix", default="", metavar="TEXT", help="Of trees, only files NAME<TEXT>.nii[.gz].")
@click.option("--exact", is_flag=True, help="Exit with 3 if any voxel differs.")
def command(a: Path, b: Path, as_json: bool, threshold: float, suffix: str, exact: bool) -> int:
    """Compare two masks, or two folders of masks.

    In folders, files with the same relative path belong together; .nii and .nii.gz are the same. Area is the
    mean cross-section, and how much larger B's is than A's. Headers are compared as well.

    Exits with 0 when everything was compared, whatever the differences; with 3 when a file could not be
    compared or has no partner, 4 when none could, 5 when nothing matched.
    """
    from fastseg.comparison import compare_files, match
    from fastseg.errors import InputError

    pairs = match(a, b, suffix=suffix)
    rows: list[_Row] = []
    for name, (first, second) in pairs.both.items():
        try:
            rows.append((name, compare_files(first, second, threshold=threshold)))
        except InputError as error:
            click.echo(f"fastseg: error: {name}: {error}", err=True)
            rows.append((name, str(error)))
    alone = [*pairs.only_a, *pairs.only_b]
    for path in alone:
        click.echo(f"fastseg: warning: {path} has no partner", err=True)
    if as_json:
        click.echo(json.dumps(_facts(rows, pairs), indent=2))
    else:
        if rows:
            _print_table(rows)
        click.echo(_summary(rows, len(alone)))

    compared = [found for _, found in rows if not isinstance(found, str)]
    if not rows:
        return Exit.NOTHING_MATCHED
    if not compared:
        return Exit.NONE_SUCCEEDED
    if len(compared) < len(rows) or alone or (exact and not all(found.exact for found in compared)):
        return Exit.SOME_FAILED
    return Exit.OK


def _columns(rows: list[_Row]) -> list[str]:
    soft = any(not isinstance(found, str) and found.soft for _, found in rows)
    return [
        *("file", "dice", "voxels A", "voxels B", "differing", "mm3 A", "mm3 B", "area %"),
        *("slices only A", "slices only B", "centre mm"),
        *(("largest", "mean") if soft else ()),
        "headers",
    ]


def _cells(row: _Row, width: int) -> list[str]:
    name, found = row
    if isinstance(found, str):
        return [name, *["-"] * (width - 2), found]
    soft = [] if width < 14 else ["-", "-"]
    if found.soft:
        soft = [f"{found.soft.largest:.2g}", f"{found.soft.mean:.2g}"]
    return [
        name,
        f"{found.dice:.4f}",
        *(str(n) for n in (*found.voxels, found.differing)),
        *(f"{volume:.1f}" for volume in found.volumes_mm3),
        "-" if math.isnan(found.area_percent) else f"{found.area_percent:+.2f}",
        *(str(n) for n in found.slices_in_one),
        "-" if math.isnan(found.centre_mm) else f"{found.centre_mm:.3f}",
        *soft,
        "; ".join(found.headers) or "same",
    ]


def _print_table(rows: list[_Row]) -> None:
    """On a terminal with lines, elsewhere with tabs."""
    columns = _columns(rows)
    table = [_cells(row, len(columns)) for row in rows]
    if not sys.stdout.isatty():
        for cells in (columns, *table):
            click.echo("\t".join(cells))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table()
    for index, column in enumerate(columns):
        text = index in (0, len(columns) - 1)
        drawn.add_column(column, justify="left" if text else "right", overflow="fold")
    for cells in table:
        drawn.add_row(*(Text(cell) for cell in cells))
    Console().print(drawn)


def _summary(rows: list[_Row], alone: int) -> str:
    from statistics import median

    compared = [found for _, found in rows if not isinstance(found, str)]
    parts = [f"{len(compared)} compared"]
    if len(compared) < len(rows):
        parts.append(f"{len(rows) - len(compared)} failed")
    if alone:
        parts.append(f"{alone} without a partner")
    if compared:
        dices = [found.dice for found in compared]
        same = sum(found.exact for found in compared)
        parts += [
            f"Dice min {min(dices):.4f} median {median(dices):.4f}",
            f"{same} with the same voxels",
            f"{sum(not found.headers for found in compared)} with the same header",
        ]
    return ", ".join(parts)


def _facts(rows: list[_Row], pairs: Pairs) -> dict[str, object]:
    return {
        "pairs": [
            {"name": name, "error": found}
            if isinstance(found, str)
            else {"name": name, **_finite(asdict(found)), "exact": found.exact}
            for name, found in rows
        ],
        "only_a": [str(path) for path in pairs.only_a],
        "only_b": [str(path) for path in pairs.only_b],
        "summary": _summary(rows, len(pairs.only_a) + len(pairs.only_b)),
    }


def _finite(value: object) -> dict[str, object]:
    """JSON has no nan: null."""

    def mended(each: object) -> object:
        if isinstance(each, float) and not math.isfinite(each):
            return None
        if isinstance(each, dict):
            return {key: mended(inner) for key, inner in each.items()}
        if isinstance(each, (list, tuple)):
            return [mended(inner) for inner in each]
        return each

    found = mended(value)
    assert isinstance(found, dict)
    return found
