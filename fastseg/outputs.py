"""Where the results of an input go, and that they appear there whole or not at all.

Names are SCT's: ``<input>_seg.nii.gz``, for soft results too; the sidecar says which it is. (``_softseg`` is
for data sets, where both lie side by side: `fastseg.cohort.plan.naming`.) Beside it ``<input>_seg.json``,
``<input>_centerline.nii.gz``, ``<input>_overlay.png`` and ``<input>_csa.tsv``; and ``<input>_points.json``,
where what was drawn by hand lies. Whoever wants an uncompressed mask names it: ``-o mask.nii``.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastseg.errors import OutputError

__all__ = [
    "POINTS",
    "Kind",
    "Outputs",
    "Tails",
    "forget_stages",
    "is_result_name",
    "is_volume_name",
    "not_writable",
    "outputs_of",
    "points_name",
    "publish",
    "split_suffix",
    "write_file",
]

Kind = Literal["mask", "sidecar", "centerline", "overlay", "csa"]

#: How the names of files of points end that are drawn by hand.
POINTS = "_points.json"

_SUFFIXES = (".nii.gz", ".nii")
# How the names of folders begin in which files wait until all of them are there.
_STAGE = ".fastseg-"
_TRIES = 5
# A volume whose name ends like this is a result, of fastseg or of SCT; strictly BIDS ones also have a label.
_RESULTS = ("_seg", "_softseg", "_centerline", "_labels")
_LABELLED_RESULTS = ("_mask", "_probseg")
# How the name of a strictly BIDS mask goes on after that of its image.
_STRICT_MASK = "_label-SC_desc-"


@dataclass(frozen=True, slots=True)
class Tails:
    """How the names of the results of one input end, after what they have in common."""

    mask: str
    sidecar: str
    centerline: str
    overlay: str
    csa: str


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one input may leave behind: files of one folder.

    Paths are made when they are asked for: of 100,000 volumes, they would take 170 MB.

    Parameters
    ----------
    folder : of all of them
    stem : what their names begin with
    tails : what they end with
    """

    folder: Path
    stem: str
    tails: Tails

    @property
    def mask(self) -> Path:
        """The segmentation, also a soft one."""
        return self.folder / self.mask_name

    @property
    def mask_name(self) -> str:
        """Its file name."""
        return self.stem + self.tails.mask

    @property
    def sidecar(self) -> Path:
        """JSON: how the mask was made."""
        return self.folder / (self.stem + self.tails.sidecar)

    @property
    def centerline(self) -> Path:
        """Volume with one voxel a slice."""
        return self.folder / (self.stem + self.tails.centerline)

    @property
    def overlay(self) -> Path:
        """PNG: the mask over the image."""
        return self.folder / (self.stem + self.tails.overlay)

    @property
    def csa(self) -> Path:
        """TSV: cross-sectional area of each slice."""
        return self.folder / (self.stem + self.tails.csa)

    @property
    def points(self) -> Path:
        """JSON: points of the centerline that were drawn by hand, if any were."""
        return self.folder / points_name(self.mask_name)

    def names(self, kinds: Iterable[Kind]) -> list[str]:
        """File names of the kinds that are wanted."""
        return [self.stem + getattr(self.tails, kind) for kind in kinds]

    def of_kinds(self, kinds: Iterable[Kind]) -> list[Path]:
        """Paths of the kinds that are wanted."""
        return [self.folder / name for name in self.names(kinds)]


def split_suffix(path: Path | str) -> tuple[str, str]:
    """File name without .nii or .nii.gz, and that suffix; a file of another name gets .nii.gz.

    Examples
    --------
    >>> split_suffix(Path("sub-01/T2w.NII")), split_suffix("T2w.nii.gz"), split_suffix("sub-01/T2w")
    (('T2w', '.NII'), ('T2w', '.nii.gz'), ('T2w', '.nii.gz'))
    """
    name = path.name if isinstance(path, Path) else path.rpartition(os.sep)[2]
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    return name, _SUFFIXES[0]


def is_volume_name(path: Path | str) -> bool:
    """Whether the name is that of a NIfTI volume."""
    return os.fspath(path).lower().endswith(_SUFFIXES)


def is_result_name(path: Path | str) -> bool:
    """Whether the name is that of a result, which is not segmented again.

    Examples
    --------
    >>> [is_result_name(name) for name in ("a_seg.nii", "sub-1_label-SC_desc-T2w_mask.nii.gz", "a_mask.nii")]
    [True, True, False]
    """
    stem = split_suffix(path)[0]
    return stem.endswith(_RESULTS) or (stem.endswith(_LABELLED_RESULTS) and "_label-" in stem)


def outputs_of(mask: Path) -> Outputs:
    """Name what belongs to a mask.

    Examples
    --------
    >>> outputs_of(Path("out/t2_seg.nii.gz")).overlay.as_posix()
    'out/t2_overlay.png'
    """
    name, suffix = split_suffix(mask)
    stem = name.removesuffix("_seg")
    ending = name[len(stem) :]
    tails = Tails(
        mask=ending + suffix if is_volume_name(mask) else ending,
        sidecar=f"{ending}.json",
        centerline=f"_centerline{suffix}",
        overlay="_overlay.png",
        csa="_csa.tsv",
    )
    return Outputs(mask.parent, stem, tails)


def points_name(mask: str) -> str:
    """Name of the file of points that are drawn by hand, beside the mask of a name: one for all kinds of it.

    Examples
    --------
    >>> points_name("t2_seg.nii.gz"), points_name("t2_label-SC_softseg.nii.gz")
    ('t2_points.json', 't2_label-SC_points.json')
    >>> points_name("sub-1_label-SC_desc-T2w_mask.nii.gz")
    'sub-1_label-centerline_desc-T2w_points.json'
    """
    stem, _ = split_suffix(mask)
    strict, _, ending = stem.rpartition("_")
    before, found, described = strict.rpartition(_STRICT_MASK)
    if found and ending in ("mask", "probseg"):
        return f"{before}_label-centerline_desc-{described}{POINTS}"
    return f"{stem.removesuffix('_seg').removesuffix('_softseg')}{POINTS}"


@contextmanager
def publish(target: Path, *, tag: str = "", durable: bool = False) -> Iterator[Path]:
    """Let a file and what belongs to it appear together, or not at all.

    Parameters
    ----------
    target : file that is moved last; its folder is made when missing
    tag : goes into the hidden folder's name, by which `forget_stages` knows what a killed run left
    durable : bring the files onto the disk before they get their names

    Yields
    ------
    stage : hidden folder beside the target. What lies there when the block ends well is moved out of it,
        replacing what is there; otherwise it is deleted, and so is a folder that had to be made.

    Raises
    ------
    OutputError
        Something cannot be written.
    """
    folder = target.parent
    stage: Path | None = None
    made: list[Path] = []
    moved: list[Path] = []
    try:
        stage = _stage_in(folder, f"{_STAGE}{tag}-" if tag else _STAGE, made)
        yield stage
        if durable:
            for path in stage.iterdir():
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
        for path in sorted(stage.iterdir(), key=lambda path: (path.name == target.name, path.name)):
            path.replace(folder / path.name)
            moved.append(folder / path.name)
        moved = []
    except OutputError as error:  # the user knows the folder, not the hidden one inside it
        text = str(error).replace(f"{stage.name}{os.sep}", "") if stage else str(error)
        raise OutputError(text) from error
    except OSError as error:
        raise not_writable(folder, error) from error
    finally:
        for path in moved:
            path.unlink(missing_ok=True)
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
        for path in made:  # those that stayed empty go again
            with suppress(OSError):
                path.rmdir()


def forget_stages(folder: Path, tag: str) -> int:
    """Remove what runs left in a folder when they were killed; gives how many there were.

    Parameters
    ----------
    tag : how theirs begin: no living run may have such a one
    """
    left = list(folder.glob(f"{_STAGE}{tag}*-*"))
    for stage in left:
        shutil.rmtree(stage, ignore_errors=True)
    return len(left)


def _stage_in(folder: Path, prefix: str, made: list[Path]) -> Path:
    """Make a hidden folder and those around it, which are noted.

    Once more where one of these was there, and another volume that failed has taken it away since.
    """
    for _ in range(_TRIES):
        made.extend(_make(folder))
        with suppress(FileNotFoundError):
            return Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))


def _make(folder: Path) -> list[Path]:
    """Make a folder; give those that had to be made, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(folder, error) from error
    return missing


def write_file(
    path: Path, content: bytes, *, temporary: Path | None = None, place: str = "output folder"
) -> None:
    """Write to a temporary file, then rename it.

    Parameters
    ----------
    temporary : that nobody else uses, on the same file system; None: one beside the target
    place : what the user can choose another one of

    Raises
    ------
    OutputError
        The file cannot be written. Nothing is left behind.
    """
    if temporary is None:
        temporary = path.with_name(f".{path.name[:64]}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise not_writable(path, error, place) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def not_writable(path: Path, error: OSError, place: str = "output folder") -> OutputError:
    """Say that something cannot be written, why, and what to do."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free space there, or choose" if full else "choose"
    why = error.strerror or error
    return OutputError(f"{path}: cannot be written ({why}); {remedy} another {place}")
