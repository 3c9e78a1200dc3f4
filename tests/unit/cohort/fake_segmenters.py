"""Segmenters without networks: a volume's slices are its images, its mask is what the engine says of them.

A volume is known by its number, which is the first voxel of each of its slices.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastseg.centerline import Centerline
from fastseg.cohort.job import Job, Outcome
from fastseg.cohort.stream.observer import Observer
from fastseg.cohort.stream.stream import Limits, Stream, Told
from fastseg.cohort.work import Manner
from fastseg.errors import CordNotFound
from fastseg.networks.packs import find_pack
from fastseg.options import Options
from fastseg.outputs import outputs_of
from fastseg.prediction import Question
from fastseg.quality import Quality
from fastseg.segmenter import Prepared, Segmentation
from fastseg.volume import Volume
from tests.fake_engines import FakeEngine
from tests.phantom_files import save, voxels_of

_On = Callable[[str, list[int]], object]
_Flags = Callable[[Options, int], Sequence[str] | None]

_AS_IT_IS, _MASK = Options(), Manner(kinds=("mask",))
_default_pack = functools.cache(lambda: find_pack("default"))


def tripled(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the fake engine answers."""
    return 3 * images


def volume_file(path: Path, number: int = 1, n_slices: int = 3, side: int = 4) -> Path:
    """Write a volume of random voxels that is known by its number."""
    voxels = np.random.default_rng(number).integers(0, 80, (side, side, n_slices), np.uint8)
    voxels[0, 0] = number
    return save(path, voxels, np.diag([1.0, 1.0, 2.0, 1.0]))


def job_of(source: Path, out: Path, options: Options = _AS_IT_IS, **facts: Any) -> Job:
    """A job for a file, whose name is that of its file."""
    stem = source.name.removesuffix(".gz").removesuffix(".nii")
    return Job(source.name, source, outputs_of(out / f"{stem}_seg.nii"), options, **facts)


def jobs_of(folder: Path, numbers: Iterable[int], **how: Any) -> list[Job]:
    """Volumes with these numbers, and a job for each."""
    sources = [volume_file(folder / "in" / f"v{number}.nii", number, **how) for number in numbers]
    return [job_of(source, folder / "out") for source in sources]


def number_of(outcome: Outcome) -> int:
    """The volume's number, as its name has it."""
    return int(outcome.job.name.removeprefix("v").removesuffix(".nii"))


class FakeSegmenters:
    """Gives a segmenter for any options.

    Parameters
    ----------
    on : called with prepare, infer or finish, and with the numbers of the volumes that it is done for
    flags : quality flags of a result by options and number; None where no cord is found
    engine : that answers
    slices_of : how many slices of a volume of so many are asked about
    """

    def __init__(
        self,
        on: _On = lambda step, numbers: None,
        flags: _Flags = lambda options, number: (),
        engine: FakeEngine | None = None,
        slices_of: Callable[[int], int] = lambda n_slices: n_slices,
    ) -> None:
        self.on, self.flags, self.slices_of = on, flags, slices_of
        self.engine = engine if engine is not None else FakeEngine(self._answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def _answer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        self.on("infer", [*dict.fromkeys(images[:, 0, 0, 0].astype(int).tolist())])
        return tripled(images)

    def of(self, options: Options) -> Any:
        return _FakeSegmenter(options, self)


class _FakeSegmenter:
    def __init__(self, options: Options, owner: FakeSegmenters) -> None:
        self.options, self._owner = options, owner
        self.engine = owner.engine
        self.pack = _default_pack()

    def prepare(self, volume: Volume, centerline: Volume | None = None) -> Prepared:
        number = int(volume.voxels[0, 0, 0])
        self._owner.on("prepare", [number])
        images = np.ascontiguousarray(volume.voxels.transpose(2, 0, 1)[:, None], np.float32)
        images = images[: self._owner.slices_of(len(images))]
        nothing: Any = None
        question = Question((images,), lambda answers: answers[0][:, 0])
        return Prepared(volume.grid, volume.grid, number, nothing, nothing, question)  # type: ignore[arg-type]

    def finish(self, prepared: Prepared, answers: Sequence[NDArray[np.float32]]) -> Segmentation:
        number: Any = prepared.found
        self._owner.on("finish", [number])
        flags = self._owner.flags(self.options, number)
        if flags is None:
            raise CordNotFound("no spinal cord was found; check the field of view")
        mask = np.zeros(prepared.grid.shape, np.uint8)
        found = prepared.question.read(answers)
        mask[:, :, : len(found)] = found.transpose(1, 2, 0)
        return Segmentation(
            mask=Volume(mask, prepared.grid),
            centerline=Centerline(prepared.grid, np.zeros((1, 3))),
            detector=self.options.detector,
            threshold=0.5,
            notes=(),
            engines={"segment": "fake"},
            networks={"segment": ("fake", "")},
            quality=Quality({"Objects": float(len(flags))}, tuple(flags), tuple(f"it is {f}" for f in flags)),
            seconds={},
        )


def told_by(
    segmenters: Any,
    jobs: Iterable[Job | Told],
    *,
    manner: Manner = _MASK,
    observer: Observer | None = None,
    each: Callable[[Stream, Told], object] = lambda stream, told: None,
    **limits: Any,
) -> list[Told]:
    """Run a stream to its end, which has to come.

    Parameters
    ----------
    each : called with each outcome, as it comes
    limits : of the stream
    """
    stream = Stream(segmenters, manner, Limits(**limits), observer)
    told: list[Told] = []
    errors: list[BaseException] = []

    def take() -> None:
        try:
            for outcome in stream.run(jobs):
                told.append(outcome)
                each(stream, outcome)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "the stream did not end"
    if errors:
        raise errors[0]
    return told


def outcomes_of(*given: Any, **how: Any) -> list[Outcome]:
    """What came of jobs, by number."""
    told = told_by(*given, **how)
    outcomes = [each for each in told if isinstance(each, Outcome)]
    assert len(outcomes) == len(told)
    return sorted(outcomes, key=number_of)


def statuses_of(*given: Any, **how: Any) -> dict[int, str]:
    """Status by number; every job has exactly one outcome."""
    outcomes = outcomes_of(*given, **how)
    statuses = {number_of(outcome): str(outcome.status) for outcome in outcomes}
    assert len(statuses) == len(outcomes), "a volume has two outcomes"
    return statuses


def assert_masks(jobs: list[Job]) -> None:
    """Every volume got the mask of its own voxels."""
    for job in jobs:
        expected = (3 * voxels_of(job.source).astype(np.float32)).astype(np.uint8)
        np.testing.assert_array_equal(voxels_of(job.outputs.mask), expected)
