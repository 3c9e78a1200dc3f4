"""A small part of tools/evaluate on real volumes: the default pack still does what it did."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fastseg.volume import Volume
from tools.evaluation.cord_free import cord_free_cases
from tools.evaluation.runs import Run, evaluate
from tools.evaluation.volumes import Case, load_case, read_list

pytestmark = pytest.mark.golden

_CASES = {case.name: case for case in read_list().cases}
# The first default pack reached 0.976, 0.940 and 0.933; another engine does not cost 0.02.
_FLOORS = {"sct-t2": 0.955, "sct-t2s": 0.920, "sct-dwi": 0.913}


@pytest.mark.parametrize("centerline", ["auto", "reference"])
@pytest.mark.parametrize("name", _FLOORS)
def test_default_pack_segments_small_volumes(shared: Path, name: str, centerline: str) -> None:
    run = Run(centerline=centerline)
    (found,) = evaluate([_CASES[name]], run, lambda case: load_case(case, shared / "data"))
    assert found.failure == ""
    assert found.accuracy is not None
    assert found.line is not None
    assert found.dice >= _FLOORS[name]
    # Targets of the whole list, which these volumes reach.
    assert abs(found.accuracy.area_bias_percent) < 16
    assert found.accuracy.found_percent == 100
    assert found.line.p95_mm < (2.5 if centerline == "auto" else 0.1)


@pytest.mark.parametrize("name", _CASES)
def test_every_volume_of_the_list_is_there_and_has_its_mask(shared: Path, name: str) -> None:
    image, reference = load_case(_CASES[name], shared / "data")
    z = [code in "SI" for code in image.grid.axcodes].index(True)
    slices = int(reference.voxels.any(axis=tuple({0, 1, 2} - {z})).sum())
    area = float(reference.voxels.sum()) * math.prod(image.grid.zooms) / image.grid.zooms[z] / slices
    # A cord has 30 to 110 mm² on a slice; a mask of another scale, or of something else, has not.
    assert 30 < area < 110
    # A mask that lies beside the body, or in a void, has no signal below it.
    assert float(np.median(image.voxels[reference.voxels])) > float(np.median(image.voxels)) > -1


def test_every_volume_that_lends_its_slices_can(shared: Path) -> None:
    @cache
    def load(case: Case) -> tuple[Volume, Volume]:
        return load_case(case, shared / "data")

    tissue = [replace(slab, fills=slab.fills[:1]) for slab in read_list().slabs]
    for each in cord_free_cases(None, tissue, _CASES, load):
        image, free = each.make()
        assert each.source is not None
        assert image.grid.same_space(load(each.source)[0].grid)
        assert 0 < free.sum() <= len(free) // 3
