"""What is wrong with volumes, before a run is started on them. Reads only; nothing is ever changed.

What each file's header says is always checked. Voxels are read of small files, of gzip files whose end does
not fit their header, and with `deep` of all; what was looked at stands in the result.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastseg.cohort.memory import budget_bytes, needed_bytes
from fastseg.cohort.plan.bids import contrast_of_suffix
from fastseg.errors import InputError
from fastseg.networks.network import ANY_CONTRAST
from fastseg.nifti import VolumeFacts, probe_volume, read_volume
from fastseg.nifti_header import human
from fastseg.options import Options
from fastseg.outputs import split_suffix
from fastseg.quality import name_note
from fastseg.volume import SCT_RPI

if TYPE_CHECKING:
    from fastseg.cohort.job import Job
    from fastseg.nifti_header import Frame

__all__ = [
    "READ_BYTES",
    "Candidate",
    "Checked",
    "Finding",
    "Severity",
    "check",
    "disk_bytes",
    "disk_finding",
    "with_duplicates",
]

#: Files of at most so many bytes are read whole, 20 to 30 ms each. A compressed constant volume is always
#: among them, because nothing compresses better.
READ_BYTES = 4_000_000
# Volumes of more are read one at a time, so that a check of many does not take the memory of several.
_LARGE_BYTES = 256_000_000
_PIECE = 1 << 20
# Of a file that is not read, bytes at its middle and end tell whether it is the same as another of its size.
_SAMPLE = 1 << 16

# Limits, measured with the built-in pack on phantoms of 3 contrasts and 2 necks, whose lowest Dice is 0.95
# with voxels of 1 x 1 x 2.5 mm. In mm2, an axial voxel: 2.25 (1.5 x 1.5) 0.94, 2.64 (3.3 x 0.8, as in
# sagittal series) 0.91; 3.06 (1.75 x 1.75) 0.89, 4 (2 x 2) 0.86. The cord is 8 mm thick.
_AXIAL_VOXEL = 2.7
# mm between slices: 20 gives 0.94, 25 gives 0.91, 30 gives 0.90. A vertebra with its disc is 17 mm high.
_SLICE_GAP = 20.0
# mm in plane: 20 loses nothing, 16 loses up to 0.06, at 12 no cord is found. The canal is 20 mm wide.
_FIELD_OF_VIEW = 20.0
# Dice stays the same down to one slice, but less than three have no neighbours to be judged by.
_SLICES = 3
# mm: a pixel of the network. Rounding of quaternions alone makes up to 0.09 in real files.
_FORMS_APART = 0.5

# The most bytes that results took on the disk, of 20 real volumes: a mask per axial slice, a soft one, and
# beside it header, sidecar and preview.
_MASK, _SOFT_MASK, _BESIDE = 250, 15_000, 420_000

# What the reader's messages are about.
_KINDS = (
    ("no such file", "missing"),
    ("no permission", "unreadable"),
    ("is a folder", "not_a_file"),
    ("is a pipe", "not_a_file"),
    ("truncated", "truncated"),
    ("ends inside", "truncated"),
    ("is empty; copy", "truncated"),
    ("corrupt", "corrupt"),
    ("not a NIfTI", "not_nifti"),
    (".hdr/.img pair", "not_nifti"),
    ("of memory", "too_large"),
    ("frame ", "no_such_frame"),
)

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


class Severity(StrEnum):
    """What a finding means for the run."""

    ERROR = "error"  #: this volume will fail
    WARNING = "warning"  #: it will run, and its result deserves a look


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Parameters
    ----------
    kind : short name that stays the same
    severity : what it means for the run
    message : on one line, with a remedy after a semicolon
    """

    kind: str
    severity: Severity
    message: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A volume that somebody means to segment.

    Parameters
    ----------
    name : for people and reports
    source : where it lies
    options : to segment it with
    frame : of a 4D file, which of its volumes
    """

    name: str
    source: Path
    options: Options
    frame: Frame | None = None

    @classmethod
    def of(cls, job: Job) -> Self:
        """What of a job can be checked before it is done."""
        return cls(job.name, job.source, job.options, job.frame)


@dataclass(frozen=True, slots=True)
class Checked:
    """A volume that was looked at.

    Parameters
    ----------
    candidate : the volume
    findings : what is wrong with it
    facts : what its header says; None where it has none
    read : whether its voxels were read
    digest : the same for volumes of the same voxels; empty where that says nothing
    """

    candidate: Candidate
    findings: tuple[Finding, ...]
    facts: VolumeFacts | None = None
    read: bool = False
    digest: str = ""

    @property
    def severity(self) -> Severity | None:
        """That of the worst finding; None where there is none."""
        return min((each.severity for each in self.findings), default=None, key=list(Severity).index)


def check(
    candidates: Iterable[Candidate], *, deep: bool = False, threads: int = 1, budget: int | None = None
) -> Iterator[Checked]:
    """Look at volumes.

    Parameters
    ----------
    candidates : the volumes
    deep : whether to read the voxels of all of them
    threads : that read at the same time
    budget : memory in bytes that a run may take; None: what `fastseg run` takes by itself

    Yields
    ------
    checked : one for each candidate, in their order. What several of them have in common is found by
        `with_duplicates`.
    """
    memory = budget_bytes() if budget is None else budget
    alone = threading.Lock()

    def look(candidate: Candidate) -> Checked:
        return _look(candidate, deep, memory, alone)

    yield from _in_order(look, candidates, threads)


def with_duplicates(checked: Sequence[Checked]) -> list[Checked]:
    """Add a finding to each volume that has the same voxels as another; all of a group name its first."""
    groups: dict[str, list[int]] = {}
    for n, each in enumerate(checked):
        if each.digest:
            groups.setdefault(each.digest, []).append(n)
    found = list(checked)
    for group in groups.values():
        for n in group if len(group) > 1 else ():
            other = checked[group[0] if n != group[0] else group[1]].candidate.name
            rest = f" and {len(group) - 2} more" if len(group) > 2 else ""
            message = (
                f"has the voxels of {other}{rest}; leave the copies out, or look whether one is misnamed"
            )
            finding = Finding("duplicate", Severity.WARNING, message)
            found[n] = replace(found[n], findings=(*found[n].findings, finding))
    return found


def disk_bytes(checked: Iterable[Checked]) -> int:
    """Room in bytes that the results of volumes take at most: masks, sidecars and previews."""
    total = 0
    for each in checked:
        if each.facts is not None and each.severity is not Severity.ERROR:
            slices = each.facts.grid.reoriented(SCT_RPI).shape[2]
            total += _BESIDE + slices * (_SOFT_MASK if each.candidate.options.soft else _MASK)
    return total


def disk_finding(folder: Path, needed: int) -> Finding | None:
    """What there is to say about the room for results in a folder, which need not exist yet."""
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free >= needed:
        return None
    message = (
        f"{folder}: {human(free)} are free, the results take up to {human(needed)}; make room, or choose -o"
    )
    return Finding("disk_full", Severity.ERROR, message)


def _look(candidate: Candidate, deep: bool, memory: int, alone: threading.Lock) -> Checked:
    frame = candidate.frame
    try:
        # A 4D file of which no frame was chosen has a header, too.
        facts = probe_volume(candidate.source, "mean" if frame is None else frame)
    except InputError as error:
        return Checked(candidate, (_of_error(error, candidate.source),))
    findings = list(_of_header(candidate, facts, memory))
    suspicious = facts.compressed and not facts.end_is_plausible
    wanted = deep or suspicious or facts.file_bytes <= READ_BYTES
    if not wanted or any(each.severity is Severity.ERROR for each in findings):
        return Checked(candidate, tuple(findings), facts, digest=_sample(candidate.source, facts))
    try:
        with alone if facts.promised_bytes > _LARGE_BYTES else nullcontext():
            volume, _ = read_volume(candidate.source, frame=frame)
            of_voxels, digest = _of_voxels(volume.voxels)
    except InputError as error:
        return Checked(candidate, (*findings, _of_error(error, candidate.source)), facts, read=True)
    except MemoryError:
        message = "the memory does not suffice to read it; close other programs, or crop it"
        return Checked(candidate, (*findings, Finding("too_large", Severity.ERROR, message)), facts)
    return Checked(candidate, (*findings, *of_voxels), facts, read=True, digest=digest)


def _of_error(error: InputError, path: Path) -> Finding:
    said = " ".join(str(error).removeprefix(f"{path}: ").split())
    kind = next((kind for phrase, kind in _KINDS if phrase in said), "bad_header")
    return Finding(kind, Severity.ERROR, said)


def _of_header(candidate: Candidate, facts: VolumeFacts, memory: int) -> Iterator[Finding]:
    if facts.frames > 1 and candidate.frame is None:
        message = f"4D, {facts.frames} volumes; choose one with --4d N, or their mean with --4d mean"
        yield Finding("four_d", Severity.ERROR, message)
    needed = needed_bytes(facts, candidate.options)
    if needed > memory:
        yield Finding(
            "too_large",
            Severity.ERROR,
            f"needs {human(needed)} of memory, a run may take {human(memory)}; crop it, or raise --mem-gb",
        )
    for note in facts.notes:
        kind = "no_orientation" if "no orientation" in note else "voxel_sizes_disagree"
        yield Finding(kind, Severity.WARNING, f"{note}; mend the header if that is wrong")
    if facts.forms_apart_mm > _FORMS_APART:
        far = (
            f"by up to {facts.forms_apart_mm:.3g} mm" if math.isfinite(facts.forms_apart_mm) else "altogether"
        )
        message = f"sform and qform disagree {far}; the sform is used, mend the one that is wrong"
        yield Finding("forms_disagree", Severity.WARNING, message)
    yield from _of_geometry(facts)
    yield from _of_contrast(candidate)


def _of_geometry(facts: VolumeFacts) -> Iterator[Finding]:
    grid = facts.grid.reoriented(SCT_RPI)
    (nx, ny, nz), (x_mm, y_mm, z_mm) = grid.shape, grid.zooms
    if x_mm * y_mm > _AXIAL_VOXEL:
        message = (
            f"axial voxels of {x_mm:.3g} x {y_mm:.3g} mm are coarse for a cord of 8 mm; look at the result"
        )
        yield Finding("coarse_in_plane", Severity.WARNING, message)
    if z_mm > _SLICE_GAP and nz > 1:
        message = f"slices are {z_mm:.3g} mm apart, more than a vertebra is high; look at the result"
        yield Finding("coarse_slices", Severity.WARNING, message)
    if min(nx * x_mm, ny * y_mm) < _FIELD_OF_VIEW:
        message = (
            f"the axial field of view is {nx * x_mm:.3g} x {ny * y_mm:.3g} mm, the canal alone is 20 mm wide"
        )
        yield Finding("small_field_of_view", Severity.WARNING, f"{message}; look whether the cord is in it")
    if nz < _SLICES:
        message = (
            f"{nz} axial slice{'' if nz == 1 else 's'} from bottom to top; look whether the axes are right"
        )
        yield Finding("few_slices", Severity.WARNING, message)


def _of_contrast(candidate: Candidate) -> Iterator[Finding]:
    name, contrast = candidate.source.name, candidate.options.contrast
    note = name_note(name, contrast)
    if note:
        message = f"{note.removesuffix(': is that right?')}; look which one is right"
        yield Finding("contrast_differs", Severity.WARNING, message)
    stem, _ = split_suffix(candidate.source)
    _, underscore, suffix = stem.rpartition("_")
    of_bids = stem.startswith("sub-") and underscore and "-" not in suffix
    if contrast == ANY_CONTRAST and of_bids and contrast_of_suffix(suffix) == ANY_CONTRAST:
        message = f"its suffix {suffix} tells no contrast that is known; name the one it looks like with -c"
        yield Finding("contrast_unknown", Severity.WARNING, message)


def _of_voxels(voxels: NDArray[Any]) -> tuple[list[Finding], str]:
    """Findings, and the digest of voxels that are worth one."""
    digest = hashlib.sha256(repr((voxels.shape, voxels.dtype.str)).encode())
    flat = voxels.reshape(-1, order="F")
    odd, lowest, highest = 0, math.inf, -math.inf
    for start in range(0, len(flat), _PIECE):
        piece = flat[start : start + _PIECE]
        digest.update(np.ascontiguousarray(piece).view(np.uint8).data)
        if piece.dtype.kind == "f":
            finite = np.isfinite(piece)
            if not finite.all():
                odd += int(len(piece) - np.count_nonzero(finite))
                piece = piece[finite]
        if len(piece):
            lowest, highest = min(lowest, piece.min()), max(highest, piece.max())
    if odd == len(flat):
        return [Finding("not_finite", Severity.ERROR, "no voxel is a number; convert or export it again")], ""
    findings = []
    if odd:
        part = f"{odd} of {len(flat)} voxels are NaN or infinite"
        message = f"{part}; they count as background, look whether they are"
        findings.append(Finding("not_finite", Severity.WARNING, message))
    if lowest == highest:
        message = f"all voxels are {lowest:g}, there is nothing to segment; export it again"
        findings.append(Finding("constant", Severity.ERROR, message))
        return findings, ""
    return findings, digest.hexdigest()


def _sample(path: Path, facts: VolumeFacts) -> str:
    """Digest of some bytes of a file that is not read whole, and of its size."""
    digest = hashlib.sha256(f"{facts.file_bytes} {facts.shape} {facts.stated_bytes}".encode())
    try:
        with path.open("rb") as stream:
            for start in (facts.file_bytes // 2, max(facts.file_bytes - _SAMPLE, 0)):
                stream.seek(start)
                digest.update(stream.read(_SAMPLE))
    except OSError:
        return ""
    return f"sampled {digest.hexdigest()}"


def _in_order(function: Callable[[_Given], _Made], given: Iterable[_Given], threads: int) -> Iterator[_Made]:
    """Results in order, of no more things at once than threads can begin soon."""
    if threads <= 1:
        yield from map(function, given)
        return
    waiting: deque[Future[_Made]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="check") as pool:
        try:
            for each in given:
                waiting.append(pool.submit(function, each))
                if len(waiting) > 8 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for left in waiting:
                left.cancel()
