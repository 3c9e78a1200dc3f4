"""``tools/export_sct``: a pack of fastseg as the files of an SCT installation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import fastseg
from fastseg.errors import FastsegError, NetworkError
from fastseg.networks.network import CONTRASTS, Role
from fastseg.networks.packs import Pack, find_pack, pack_digest, read_svm
from fastseg.networks.sct import _network as sct_network
from tools.export.folder import check_target, write_folder
from tools.export.graphs import wrapped
from tools.export.svm_yaml import opencv_yaml
from tools.export.texts import Exported, readme

__all__ = ["export", "main"]

_PROGRAM = "tools/export_sct"

# The fastseg checkout, whose licence is that of the built-in packs.
_CHECKOUT = Path(__file__).resolve().parents[2]

_EXIT_BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, and say what was written."""
    given = _parse(arguments)
    try:
        files = export(given.models, given.out, given.contrast, light=given.light, force=given.force)
    except FastsegError as error:
        print(f"{_PROGRAM}: error: {error}", file=sys.stderr)
        return _EXIT_BAD_INPUT
    width = max(len(file.name) for file in files)
    for file in files:
        print(f"{file.name:<{width}}  from {file.source}")
    print(f"{given.out}: how to install is in its README.txt")
    return 0


def export(
    models: str | Path,
    out: Path,
    contrasts: Sequence[str] | None = None,
    *,
    light: bool = False,
    force: bool = False,
) -> list[Exported]:
    """Write a folder with deepseg_sc_models, optic_models, README.txt and the pack's MODEL_CARD.md.

    Parameters
    ----------
    models : name of a pack of networks, or a folder that holds one
    out : the folder; new, empty, or, with `force`, an earlier export
    contrasts : those of `CONTRASTS` to export; None: all that the pack has something for
    light : take the smaller 2D network
    force : replace an earlier export

    Raises
    ------
    NetworkError
        The pack is missing or damaged, has nothing for a contrast, or a network that does not go into SCT.
    OutputError
        The folder may not, or cannot, be written.
    """
    check_target(out, force=force)
    pack = find_pack(models)
    files: list[Exported] = []
    contents: dict[str, bytes] = {}
    for contrast in dict.fromkeys(contrasts or CONTRASTS):
        made = list(_of_contrast(pack, contrast, light=light))
        if not made and contrasts:
            raise NetworkError(
                f"pack {pack.name!r} has nothing for contrast {contrast}: "
                "leave it out (`fastseg models show` says what a pack has)"
            )
        files += [file for file, _ in made]
        contents |= {file.name: content for file, content in made}
    if not files:
        raise NetworkError(f"pack {pack.name!r} has nothing for any contrast of SCT: choose another --models")
    files.sort(key=lambda file: file.name)
    papers = _papers(pack)
    contents |= papers
    contents["README.txt"] = readme(pack, files, list(papers), fastseg.__version__).encode()
    write_folder(out, contents, force=force)
    return files


def _of_contrast(pack: Pack, contrast: str, *, light: bool) -> Iterator[tuple[Exported, bytes]]:
    """Make every file that the pack has something for."""
    roles = {
        "ctr": Role.DETECT_BLOCKS if pack.has(Role.DETECT_BLOCKS, contrast) else Role.DETECT_SLICES,
        "sc": Role.SEGMENT_2D_LIGHT if light else Role.SEGMENT_2D,
        "sc_3D": Role.SEGMENT_3D,
    }
    if contrast == "dwi":  # SCT has no 3D network for it
        del roles["sc_3D"]
    for kind, role in roles.items():
        if not pack.has(role, contrast):
            continue
        network = pack.network(role, contrast)
        sct = sct_network(contrast, kind, network.sha256, pack.name)
        origin = pack.origins[network.path.name]
        moved = ""
        if role is not Role.DETECT_SLICES:
            moved = f"{network.thresholds[contrast]:g} -> {sct.thresholds[contrast]:g}"
        facts = {
            "fastseg.version": fastseg.__version__,
            "fastseg.pack": f"{pack.name} {pack.version}",
            "fastseg.pack_digest": pack_digest(pack),
            "fastseg.file": network.path.name,
            "fastseg.sha256": network.sha256,
            "fastseg.source": origin.source,
            "fastseg.licence": origin.licence,
            "fastseg.contrast": contrast,
            "fastseg.threshold": moved or "a heat map, not moved",
        }
        name = f"deepseg_sc_models/{contrast}_{kind}.onnx"
        content = wrapped(network.path.read_bytes(), network, sct, contrast, facts)
        yield Exported(name, network.path.name, origin.licence, moved), content
    if pack.has_svm(contrast):
        model = pack.svm(contrast)
        content = opencv_yaml(read_svm(model)).encode()
        licence = pack.origins[model.path.name].licence
        yield Exported(f"optic_models/{contrast}_model.yml", model.path.name, licence, ""), content


def _papers(pack: Pack) -> dict[str, bytes]:
    """Give the pack's model card and licence, where they are."""
    built_in = pack.folder.is_relative_to(Path(fastseg.__file__).absolute().parent)
    licence = _CHECKOUT / "LICENSE" if built_in else pack.folder / "LICENSE"
    found = {"MODEL_CARD.md": pack.card, "LICENSE": licence}
    return {name: path.read_bytes() for name, path in found.items() if path.is_file()}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_EXIT_BAD_INPUT, f"{_PROGRAM}: error: {message} (--help shows the options)\n")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog=_PROGRAM,
        description="Write a pack of fastseg as the files of an SCT installation: ONNX networks for "
        "data/deepseg_sc_models and SVMs for data/optic_models. SCT's intensities, sizes and thresholds are "
        "translated inside the graphs.",
        epilog="Exit code 2: something that was given cannot be used; the message says what to do.",
    )
    add = parser.add_argument
    add(
        "--models", metavar="PACK", default="default", help="name of a pack, or its folder (default: default)"
    )
    add("--out", metavar="DIR", type=Path, required=True, help="folder to write: new, or empty")
    add(
        "--contrast",
        action="append",
        choices=CONTRASTS,
        help="only this contrast; may be repeated (default: all that the pack has)",
    )
    add("--light", action="store_true", help="take the pack's smaller 2D network")
    add("--force", action="store_true", help="replace an earlier export in DIR")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
