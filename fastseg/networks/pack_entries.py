"""Entries of pack.toml: what it says about one network or SVM."""

from __future__ import annotations

from pathlib import Path

from fastseg.networks.network import (
    ANY_CONTRAST,
    CONTRASTS,
    PRECISIONS,
    Acceptance,
    EngineRecord,
    Network,
    Precision,
    Role,
    SvmModel,
)
from fastseg.networks.toml_table import Table

__all__ = ["LAYOUTS", "network_entry", "svm_entry"]

#: Layout -> spatial axes, channels last.
LAYOUTS = {"NCHW": (2, False), "NHWC": (2, True), "NCDHW": (3, False), "NDHWC": (3, True)}


def network_entry(table: Table, folder: Path) -> Network:
    """Read a [[network]].

    Parameters
    ----------
    table : the entry
    folder : of the pack

    Raises
    ------
    NetworkError
        A key is missing or makes no sense, or the file is missing.
    """
    role = table.choice("role", tuple(Role))
    contrasts = table.contrasts("contrasts")
    axes, channels_last = LAYOUTS[table.choice("layout", tuple(LAYOUTS))]
    spatial = table.sizes("spatial")
    if not len(spatial) == axes == (3 if role == Role.SEGMENT_3D else 2):
        raise table.error("'spatial', 'layout' and 'role' do not go together")
    if role not in (Role.DETECT_SLICES, Role.DETECT_BLOCKS) and not 0 < spatial[0] == spatial[1]:
        raise table.error("'spatial' does not begin with the size of a square crop")
    std = table.number("std")
    if std <= 0:
        raise table.error("'std' is not positive")
    macs = table.number_or_none("macs_millions")
    if macs is not None and macs <= 0:
        raise table.error("'macs_millions' is not positive")
    return Network(
        path=table.file(folder),
        sha256=table.sha256(),
        role=Role(role),
        contrasts=contrasts,
        spatial=spatial,
        channels_last=channels_last,
        mean=table.number("mean"),
        std=std,
        thresholds=table.thresholds(contrasts),
        pack=folder.name,
        precision={name: _precision(each) for name, each in table.named("precision", PRECISIONS).items()},
        macs_millions=macs,
        acceptance=_acceptance(table.table_or_none("acceptance")),
        engines=tuple(map(_engine, table.tables("engine"))),
    )


def svm_entry(table: Table, folder: Path) -> SvmModel:
    """Read an [[svm]]; see `network_entry`."""
    contrast = table.choice("contrast", (*CONTRASTS, ANY_CONTRAST))
    return SvmModel(table.file(folder), table.sha256(), contrast, folder.name)


def _precision(table: Table) -> Precision:
    lost = Precision(*map(table.number, ("max_difference", "flipped_per_million", "dice")))
    _check_loss(table, lost)
    if lost.max_difference < 0:
        raise table.error("a number is out of range")
    return lost


def _acceptance(table: Table | None) -> Acceptance | None:
    if table is None:
        return None
    accepted = Acceptance(table.number("flipped_per_million"), table.number("dice"))
    _check_loss(table, accepted)
    return accepted


def _engine(table: Table) -> EngineRecord:
    record = EngineRecord(
        table.text("name"),
        table.text("capability"),
        *map(table.number, ("max_difference", "flipped_per_million", "dice", "speed")),
    )
    _check_loss(table, record)
    if not (record.name and record.capability and record.max_difference >= 0 and record.speed > 0):
        raise table.error("a text is empty, or a number is out of range")
    return record


def _check_loss(table: Table, lost: Precision | Acceptance | EngineRecord) -> None:
    if not (0 <= lost.flipped_per_million <= 1e6 and 0 <= lost.dice <= 1):
        raise table.error("a number is out of range")
