"""What SCT does differently from what one would expect, as switches.

The numbers are those of docs/sct.md. `MENDED` is what `fastseg run` uses; `SCT_QUIRKS` reproduces
sct_deepseg_sc voxel by voxel and is used by `fastseg deepseg-sc` only.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MENDED", "SCT_QUIRKS", "Quirks"]


@dataclass(frozen=True, slots=True)
class Quirks:
    """Which quirks of sct_deepseg_sc are kept; every switch is off where the quirk is mended.

    Parameters
    ----------
    gaps_stay : gaps along z are announced but not filled (quirk 1)
    edges_by_index : end slices are tested only near slices 0 to 4, the upper one only from 4 on (quirk 2)
    detection_blocks_reused : the tracking detector normalises a block twice, writes a block that leaves the
        field of view back shifted, drops the last detected slice, and gives up after ten misses with
        brain = 1 also before the cord was reached (quirks 3 to 6)
    empty_slices_steer : predictions on slices without centerline move the remembered centre (quirk 8)
    soft_is_all_cord : in a soft result every value above 0 counts as cord (quirk 9)
    empty_slices_in_percentiles : the zeros of slices without centerline count in the intensity
        percentiles (quirk 11)
    nan_poisons : one NaN inside one crop empties the result (quirk 12)
    header_codes_rewritten : qform and sform are rewritten, codes of 0 become 2 (quirk 13)
    centerline_by_index : a centerline on another grid is used by index, and rounding may give one on an
        oblique image a slice more (quirk 14)
    soft_of_nothing : a soft result is given also when no voxel is cord (quirk 15)
    objects_below_stay : small objects are removed above the cord only (quirk 16)
    """

    gaps_stay: bool = False
    edges_by_index: bool = False
    detection_blocks_reused: bool = False
    empty_slices_steer: bool = False
    soft_is_all_cord: bool = False
    empty_slices_in_percentiles: bool = False
    nan_poisons: bool = False
    header_codes_rewritten: bool = False
    centerline_by_index: bool = False
    soft_of_nothing: bool = False
    objects_below_stay: bool = False


MENDED = Quirks()
SCT_QUIRKS = Quirks(
    gaps_stay=True,
    edges_by_index=True,
    detection_blocks_reused=True,
    empty_slices_steer=True,
    soft_is_all_cord=True,
    empty_slices_in_percentiles=True,
    nan_poisons=True,
    header_codes_rewritten=True,
    centerline_by_index=True,
    soft_of_nothing=True,
    objects_below_stay=True,
)
