"""Writes pack.toml, which `fastseg.networks.packs` reads."""

from __future__ import annotations

import json
from dataclasses import asdict

from fastseg.networks.network import Acceptance, EngineRecord, Precision
from fastseg.networks.pack_entries import LAYOUTS
from fastseg.networks.packs import FORMAT, Pack

__all__ = ["pack_toml"]


def pack_toml(pack: Pack) -> str:
    """Write what `load_pack` reads.

    Examples
    --------
    >>> from fastseg.networks.packs import find_pack
    >>> print(pack_toml(find_pack("default")).splitlines()[0])
    format = 1
    """
    lines = [
        f"format = {FORMAT}",
        f"version = {_quoted(pack.version)}",
        f"licence = {_quoted(pack.licence)}",
        f"source = {_quoted(pack.source)}",
        f"centerline = {_quoted(pack.centerline)}",
    ]
    for network in pack.networks:
        origin = pack.origins[network.path.name]
        thresholds = ", ".join(f"{c} = {network.thresholds[c]!r}" for c in network.contrasts)
        layout = (len(network.spatial), network.channels_last)
        lines += [
            "",
            "[[network]]",
            f"file = {_quoted(network.path.name)}",
            f"sha256 = {_quoted(network.sha256)}",
            f"role = {_quoted(network.role)}",
            f"contrasts = [{', '.join(map(_quoted, network.contrasts))}]",
            f"spatial = [{', '.join(map(str, network.spatial))}]",
            f"layout = {_quoted(next(name for name, facts in LAYOUTS.items() if facts == layout))}",
            f"mean = {network.mean!r}",
            f"std = {network.std!r}",
            f"thresholds = {{ {thresholds} }}",
            *([] if network.macs_millions is None else [f"macs_millions = {network.macs_millions!r}"]),
            f"source = {_quoted(origin.source)}",
            f"licence = {_quoted(origin.licence)}",
        ]
        for name, lost in network.precision.items():
            lines += ["", f"[network.precision.{name}]", *_numbers(lost)]
        if network.acceptance is not None:
            lines += ["", "[network.acceptance]", *_numbers(network.acceptance)]
        for record in network.engines:
            lines += ["", "[[network.engine]]", *_numbers(record)]
    for model in pack.svm_models:
        origin = pack.origins[model.path.name]
        lines += [
            "",
            "[[svm]]",
            f"file = {_quoted(model.path.name)}",
            f"sha256 = {_quoted(model.sha256)}",
            f"contrast = {_quoted(model.contrast)}",
            f"source = {_quoted(origin.source)}",
            f"licence = {_quoted(origin.licence)}",
        ]
    return "\n".join(lines) + "\n"


def _numbers(facts: Precision | Acceptance | EngineRecord) -> list[str]:
    return [
        f"{key} = {_quoted(value) if isinstance(value, str) else repr(value)}"
        for key, value in asdict(facts).items()
    ]


def _quoted(text: str) -> str:
    # A TOML basic string escapes like JSON, and DEL besides.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
