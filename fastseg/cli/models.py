"""fastseg models: list, look at, check and import packs of networks."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fastseg.networks.network import Network
    from fastseg.networks.packs import Pack
    from fastseg.networks.sct import ImportReport

__all__ = ["command"]

# Exit.UNEXPECTED of fastseg.cli: what was asked for is not so.
_NOT_SO = 1


@click.group("models")
def command() -> None:
    """Packs of networks: list, info, verify, import.

    Packs are looked for in the folders of FASTSEG_PACKS, in the user's data folder, and in fastseg itself.
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def list_command(as_json: bool) -> None:
    """List the packs that --models can name."""
    from fastseg.networks.packs import Pack, list_packs

    found = list_packs()
    seen: set[str] = set()
    entries: list[dict[str, object]] = []
    for item in found:
        if isinstance(item, Pack):
            hidden = item.name in seen
            seen.add(item.name)
            entries.append({**_pack_facts(item), "contrasts": _purposes(item), "hidden": hidden})
        else:
            entries.append({"error": str(item)})
    if as_json:
        click.echo(json.dumps(entries, indent=2))
        return
    for entry, item in zip(entries, found, strict=True):
        if not isinstance(item, Pack):
            click.echo(f"(broken) {item}")
            continue
        click.echo(f"{item.name}  {item.folder}")
        for kind, contrasts in _purposes(item).items():
            click.echo(f"    {kind:<18}{' '.join(contrasts)}")
        if entry["hidden"]:
            click.echo("    hidden by the pack of the same name above: give its folder to use it")


@command.command("info")
@click.argument("pack", metavar="NAME_OR_FOLDER")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def info_command(pack: str, as_json: bool) -> None:
    """Show what a pack holds and where it comes from."""
    from fastseg.networks.packs import find_pack

    found = find_pack(pack)
    if as_json:
        facts = {
            **_pack_facts(found),
            "networks": [_network_facts(found, network) for network in found.networks],
            "svm_models": [
                {"file": m.path.name, "sha256": m.sha256, "contrast": m.contrast, **_origin(found, m.path)}
                for m in found.svm_models
            ],
        }
        click.echo(json.dumps(facts, indent=2))
        return
    for label, value in _pack_facts(found).items():
        click.echo(f"{label:<12}{value}")
    for network in found.networks:
        facts = _network_facts(found, network)
        click.echo(f"\n{facts.pop('file')}")
        for label, value in facts.items():
            if isinstance(value, dict) and label == "precision":
                for name, lost in value.items():
                    click.echo(f"    {name:<15}{_plain(lost)}")
            elif value is not None:
                click.echo(f"    {label:<15}{_plain(value)}")
    for model in found.svm_models:
        click.echo(f"\n{model.path.name}")
        rows = {"role": "svm", "contrast": model.contrast, "sha256": model.sha256}
        for label, value in {**rows, **_origin(found, model.path)}.items():
            click.echo(f"    {label:<15}{value}")


@command.command("verify")
@click.argument("packs", metavar="[NAME_OR_FOLDER]...", nargs=-1)
@click.pass_context
def verify_command(context: click.Context, packs: tuple[str, ...]) -> None:
    """Check digests, and that every network loads; all packs when none is named.

    Exits with 1 when something is wrong.
    """
    from fastseg.errors import NetworkError
    from fastseg.networks.packs import find_pack, list_packs, verify_pack

    sound = True
    for pack in [find_pack(name) for name in packs] or list_packs():
        if isinstance(pack, NetworkError):
            click.echo(f"(broken) {pack}")
            sound = False
            continue
        click.echo(f"{pack.name}  {pack.folder}")
        width = max(len(item.path.name) for item in pack.items)
        for check in verify_pack(pack):
            click.echo(f"    {check.file:<{width}}  {check.problem or 'ok'}")
            sound = sound and not check.problem
    if not sound:
        context.exit(_NOT_SO)


@command.command("import")
@click.option(
    "--sct",
    "folder",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path),
    help="SCT's data folder, or any part of it.",
)
@click.option("--name", required=True, help="Name of the pack to make.")
@click.option("--force", is_flag=True, help="Replace another pack of this name.")
def import_command(folder: Path, name: str, force: bool) -> None:
    """Make a pack from the networks of an SCT installation.

    Takes deepseg_sc_models (*.onnx, or the original *.h5 with `pip install "fastseg[import]"`) and
    optic_models (*.yml), all of them or some. The pack is written into the first folder of FASTSEG_PACKS,
    else into the user's data folder.
    """
    from fastseg.networks.sct import import_sct

    _tell(import_sct(folder, name, force=force))


def _tell(report: ImportReport) -> None:
    for item in report.imported:
        click.echo(f"{item.source.name:<15} -> {item.target:<15} {item.identity}")
    for path, why in report.refused:
        click.echo(f"fastseg: warning: {path} was left out: {why}", err=True)
    if report.superseded:
        click.echo(f"ignored: {', '.join(f'{path.name} ({why})' for path, why in report.superseded)}")
    if report.unknown:
        click.echo(f"ignored, not known: {', '.join(path.name for path in report.unknown)}")
    if report.missing:
        click.echo(f"not there: {', '.join(report.missing)}")
    done = "stored in" if report.stored else "the same pack was there already,"
    click.echo(f"{report.pack.name}: {done} {report.pack.folder}")
    click.echo(f"Use it with --models {report.pack.name}. See its MODEL_CARD.md for the licences.")


def _pack_facts(pack: Pack) -> dict[str, object]:
    from fastseg.networks.packs import pack_digest

    return {
        "name": pack.name,
        "folder": str(pack.folder),
        "version": pack.version,
        "licence": pack.licence,
        "source": pack.source,
        "centerline": pack.centerline,
        "digest": pack_digest(pack),
        "card": str(pack.card) if pack.card.is_file() else None,
    }


def _purposes(pack: Pack) -> dict[str, list[str]]:
    from fastseg.networks.network import ANY_CONTRAST, CONTRASTS, Role

    known = (*CONTRASTS, ANY_CONTRAST)
    held = {str(role): [c for c in known if pack.has(role, c)] for role in Role}
    held["svm"] = [c for c in known if pack.has_svm(c)]
    return {kind: contrasts for kind, contrasts in held.items() if contrasts}


def _network_facts(pack: Pack, network: Network) -> dict[str, object]:
    return {
        "file": network.path.name,
        "role": str(network.role),
        "contrasts": list(network.contrasts),
        "spatial": list(network.spatial),
        "channels_last": network.channels_last,
        "mean": network.mean,
        "std": network.std,
        "thresholds": dict(network.thresholds),
        "macs_millions": network.macs_millions,
        "precision": {name: asdict(lost) for name, lost in network.precision.items()},
        "sha256": network.sha256,
        **_origin(pack, network.path),
    }


def _origin(pack: Pack, path: Path) -> dict[str, str]:
    origin = pack.origins[path.name]
    return {"source": origin.source, "licence": origin.licence}


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " ".join(str(n or "any") for n in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {number:g}" for key, number in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
