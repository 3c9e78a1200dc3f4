"""The options of fastseg run, and their sections on the help page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fastseg.cli.observe import observing_options
from fastseg.cli.shared import locating_options, with_options

__all__ = ["Sectioned", "run_options"]


def _result_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what is made of a volume, and written."""
    options = (
        click.option(
            "-o",
            "out",
            metavar="OUT",
            type=click.Path(path_type=Path),
            help="Folder, made when missing; or for one volume a file ending in .nii or .nii.gz.  "
            "[default: current folder]",
        ),
        click.option(
            "--kernel",
            type=click.Choice(["2d", "2d-light", "3d"]),
            default="2d",
            help="Slice by slice, the same with a smaller network, or blocks of slices.",
        ),
        click.option(
            "--thr",
            "threshold",
            type=float,
            help="Cord above this; -1 means --soft.  [default: the network's]",
        ),
        click.option("--soft", is_flag=True, help="Write probabilities instead of a mask."),
        click.option(
            "--rescue", is_flag=True, help="Try flagged and failed volumes again with the other methods."
        ),
        click.option("--preview", is_flag=True, help="Write <input>_overlay.png."),
        click.option("--save-centerline", is_flag=True, help="Write <input>_centerline, one voxel a slice."),
        click.option("--csa", is_flag=True, help="Write <input>_csa.tsv: area of every slice in mm2."),
        click.option("--sidecar/--no-sidecar", "with_sidecar", default=True, help="Write <input>_seg.json."),
        click.option(
            "--naming",
            type=click.Choice(["sct", "neuropoly", "bids"]),
            help="Names of results.  [default: neuropoly for BIDS data sets, else sct]",
        ),
        click.option(
            "--qc",
            metavar="DIR",
            type=click.Path(path_type=Path),
            help="Add the volumes to the QC report in DIR; see fastseg qc.",
        ),
        click.option(
            "--qc-dataset",
            metavar="NAME",
            default="",
            show_default="its folder's",
            help="Name of the data set, for --qc.",
        ),
        click.option(
            "--qc-subject",
            metavar="NAME",
            default="",
            show_default="by each file's name",
            help="Name of the subject, for --qc.",
        ),
    )
    return with_options(options, command)


def _cohort_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for many volumes."""
    options = (
        click.option(
            "--participant-label", "participants", multiple=True, metavar="LABEL", help="Of BIDS; may repeat."
        ),
        click.option(
            "--session-label", "sessions", multiple=True, metavar="LABEL", help="Of BIDS; may repeat."
        ),
        click.option(
            "--suffix",
            "suffixes",
            multiple=True,
            metavar="SUFFIX",
            help="Of BIDS images.  [default: T1w, T2w, T2star, T2starw]",
        ),
        click.option(
            "--exclude",
            "excluded",
            multiple=True,
            metavar="WHAT",
            help="Pattern, participant[/session], or a text file of these.",
        ),
        click.option(
            "--exclude-yml",
            "excluded_yml",
            multiple=True,
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="SCT's qc_fail.yml.",
        ),
        click.option("--overwrite", is_flag=True, help="Do all volumes again, replace what exists."),
        click.option("--retry-failed", is_flag=True, help="Try volumes again that failed in earlier runs."),
        click.option("--fail-fast", is_flag=True, help="Begin no further volume after the first failure."),
        click.option("--max-failures", type=click.IntRange(min=1), metavar="N", help="The same after N."),
        click.option(
            "--jobs",
            type=click.IntRange(min=1),
            metavar="N",
            help="Threads for the volumes of a cohort; with --cluster, workers.  [default: --threads, or the "
            "cores at hand]",
        ),
        click.option(
            "--mem-gb",
            type=float,
            metavar="GB",
            help="Memory for all of it.  [default: four fifths of what is free]",
        ),
        click.option("--shard", metavar="I/N", help="Do part I of N, as in a job array; see fastseg report."),
        click.option(
            "--cluster",
            metavar="WHERE",
            help="Run on Dask: local, slurm, or the tcp:// address of a scheduler. Needs fastseg[cluster].",
        ),
        click.option(
            "--stall",
            "give_up",
            type=click.FloatRange(min=1),
            default=1800.0,
            metavar="SECONDS",
            help="Give a volume up when one of its steps takes longer.",
        ),
    )
    return with_options(options, command)


def _telling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what is told."""
    options = (
        click.option(
            "--report", metavar="FILE", type=click.Path(path_type=Path), help="Write a JSON of the run."
        ),
        click.option("--log-json", is_flag=True, help="Tell in JSON lines on stderr."),
        click.option("--quiet", is_flag=True, help="Tell failures and warnings only."),
        click.option("-v", "--verbose", is_flag=True, help="Tell every step, and tracebacks of bugs."),
    )
    return with_options(options, command)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add all options of ``fastseg run``."""
    for add in (observing_options, _telling_options, _cohort_options, _result_options, locating_options):
        command = add(command)
    return command


class Sectioned(click.Command):
    """Shows its options in sections: there are too many for one list."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of each section under its name."""
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        records = {str(each.name): each.get_help_record(ctx) for each in options}
        named = [name for names in _SECTIONS.values() for name in names]
        rest = tuple(name for name in records if name not in named)
        for title, names in {**_SECTIONS, "Telling": rest}.items():
            with formatter.section(title):
                formatter.write_dl([record for name in names if (record := records.get(name))])


_SECTIONS: dict[str, tuple[str, ...]] = {
    "Finding the cord": ("contrast", "detector", "file_centerline", "brain", "frame"),
    "Networks": ("kernel", "models", "device", "precision", "engine", "threads"),
    "Results": (
        "out", "threshold", "soft", "rescue", "preview", "save_centerline", "csa", "with_sidecar", "naming",
        "overwrite", "qc", "qc_dataset", "qc_subject",
    ),
    "Choosing volumes": ("participants", "sessions", "suffixes", "excluded", "excluded_yml", "shard"),
    "Cohorts": (
        "retry_failed", "fail_fast", "max_failures", "jobs", "mem_gb", "cluster", "give_up",
    ),
}  # fmt: skip
