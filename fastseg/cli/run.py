"""fastseg run: segment one volume, or a cohort."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastseg.cli import Exit
from fastseg.cli.observe import observed
from fastseg.cli.progress import Reporter
from fastseg.cli.run_options import Sectioned, run_options
from fastseg.cli.shared import (
    TERMINATED,
    compute_of,
    load_needed_kernels,
    logging_to_stderr,
    opening,
    put,
    terminable,
    usable_threads,
)
from fastseg.errors import OptionError, OutputError
from fastseg.outputs import Kind

if TYPE_CHECKING:
    from fastseg.cohort.job import Job, Outcome
    from fastseg.cohort.ledger import Shard
    from fastseg.cohort.plan.planning import Plan, Selection, Wanted
    from fastseg.cohort.session import Plans, Session
    from fastseg.cohort.showing import Showing, Shown

__all__ = ["command"]


@click.command("run", cls=Sectioned, context_settings={"show_default": True})
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@run_options
def command(inputs: tuple[str, ...], **given: Any) -> int:
    """Segment the spinal cord in one volume, or in a cohort.

    INPUT is a volume; a folder, whose volumes keep their place below OUT; a pattern in quotes; a list
    (.tsv, .csv) with a column "input"; or - for paths or JSON lines on stdin. A BIDS data set is given in
    three words: BIDS_DIR OUT_DIR participant.

    The mask of INPUT is OUT/<input>_seg.nii.gz. Paths of masks go to stdout, one line a volume to stderr. Of
    many volumes, those that are done are not done again: OUT/.fastseg keeps a ledger. OUT/summary.tsv has a
    row for each volume.

    Exit codes: 0 all fine, 2 usage, 3 some volumes failed, 4 none succeeded, 5 no volume found,
    130 and 143 interrupted.
    """
    with observed(given.pop("profile_time"), given.pop("trace_memory"), given.pop("trace")):
        return _run(inputs, given)


def _run(inputs: tuple[str, ...], given: dict[str, Any]) -> int:
    from fastseg.cohort.plan.planning import PARTICIPANT, plan

    viewer = given["detector"] == "viewer"
    if viewer and given["file_centerline"] is not None:
        raise click.UsageError("--centerline viewer and --file-centerline exclude each other")
    wanted, selection = _wanted(given), _selection(given)
    out: Path | None = given["out"]
    if inputs == ("-",):
        if viewer:
            raise click.UsageError("--centerline viewer needs volumes that are known at the start, not stdin")
        return _stdin(given, wanted, out if out is not None else Path())
    planned = plan(inputs, out, wanted, selection)
    if not planned.jobs and not planned.failures:
        click.echo(f"fastseg: error: no .nii or .nii.gz volume in {', '.join(inputs)}", err=True)
        return Exit.NOTHING_MATCHED
    if given["report"] is not None:
        _check_report(given["report"], planned.jobs)
    showing = _showing(given, planned.root if planned.form != "file" else None)
    if viewer:
        from fastseg.cli.sitting import with_points

        planned = replace(planned, jobs=with_points(planned.jobs, again=given["overwrite"]))
    if planned.form == "file" and len(planned.jobs) == 1 and not planned.failures and not given["cluster"]:
        return _one(planned, wanted, given, showing)
    return _cohort(planned, wanted, given, showing, bids=inputs[-1] == PARTICIPANT and planned.form == "bids")


def _wanted(given: dict[str, Any]) -> Wanted:
    from fastseg.cohort.plan.planning import Wanted
    from fastseg.options import Options

    threshold, soft, detector = given["threshold"], given["soft"], given["detector"]
    if threshold == -1:
        threshold, soft = None, True
    elif threshold is not None and soft:
        raise click.UsageError("--thr and --soft exclude each other")
    if given["file_centerline"] is not None:
        detector = "file"
    elif detector == "viewer":  # points are drawn when the volumes are known
        detector = "auto"
    kinds: dict[Kind, bool] = {
        "mask": True,
        "sidecar": given["with_sidecar"],
        "centerline": given["save_centerline"],
        "overlay": given["preview"],
        "csa": given["csa"],
    }
    options = Options(
        contrast=given["contrast"],
        kernel=given["kernel"],
        detector=detector,
        threshold=threshold,
        soft=soft,
        brain=None if given["brain"] is None else given["brain"] == "1",
    )
    source = click.get_current_context().get_parameter_source("contrast")
    return Wanted(
        options,
        contrast_given=source is not None and source.name == "COMMANDLINE",
        frame=given["frame"],
        file_centerline=str(given["file_centerline"]) if given["file_centerline"] else None,
        kinds=tuple(kind for kind, is_wanted in kinds.items() if is_wanted),
        naming=given["naming"],
    )


def _selection(given: dict[str, Any]) -> Selection:
    from fastseg.cohort.plan.planning import Selection

    return Selection(
        participants=given["participants"],
        sessions=given["sessions"],
        suffixes=given["suffixes"],
        excluded=given["excluded"],
        excluded_yml=given["excluded_yml"],
    )


def _check_report(report: Path, jobs: list[Job]) -> None:
    taken = {path.resolve() for job in jobs for path in (job.source, job.centerline) if path is not None}
    for job in jobs:
        taken |= {
            path.resolve()
            for path in job.outputs.of_kinds(("mask", "sidecar", "centerline", "overlay", "csa"))
        }
    if report.resolve() in taken:
        raise OptionError(f"--report {report} is an input or an output: choose another name")
    if not report.absolute().parent.is_dir():
        raise OptionError(f"--report {report}: its folder does not exist")


def _showing(given: dict[str, Any], data_set: Path | None) -> Showing | None:
    """The QC report that is asked for; a data set's name is that of its folder, unless given."""
    from fastseg.cohort.showing import Showing

    if given["qc"] is None:
        if given["qc_dataset"] or given["qc_subject"]:
            raise click.UsageError("--qc-dataset and --qc-subject need --qc DIR")
        return None
    dataset = given["qc_dataset"] or (data_set.name if data_set is not None else "")
    return Showing(given["qc"].absolute(), dataset, given["qc_subject"])


def _shown(showing: Showing | None, out: Path, root: Path) -> AbstractContextManager[Shown | None]:
    from fastseg.cohort.showing import Shown

    return Shown(showing, out, root) if showing is not None else nullcontext()


def _facts(given: dict[str, Any], form: str) -> dict[str, object]:
    return {"Contrast": given["contrast"], "Models": given["models"], "Form": form}


# --- one volume


def _one(planned: Plan, wanted: Wanted, given: dict[str, Any], showing: Showing | None) -> int:
    """One volume: no ledger, all cores for its inference."""
    from fastseg.cohort.job import Outcome, Status

    (job,) = planned.jobs
    reporter = Reporter(1, quiet=given["quiet"], as_json=given["log_json"])
    for remark in planned.remarks:
        reporter.say(remark, warning=True)
    began = time.perf_counter()
    existing = [path for path in job.outputs.of_kinds(wanted.kinds) if os.path.lexists(path)]
    code: int | None = None
    outcome = shown = None
    if job.skip:
        outcome = Outcome(job, Status.SKIPPED, job.skip)
    elif existing and not given["overwrite"]:
        message = f"{existing[0]} exists: add --overwrite, or choose another -o"
        outcome = Outcome(job, Status.ERROR, message)
    else:
        try:
            with terminable(), _shown(showing, planned.out, planned.root) as shown:
                outcome = _segment(job, wanted, given, showing)
                if shown is not None:
                    shown.note(outcome)
        except KeyboardInterrupt:
            click.echo("fastseg: error: interrupted, 0 of 1 volumes done", err=True)
            code = Exit.INTERRUPTED
        except SystemExit:
            click.echo("fastseg: error: terminated, 0 of 1 volumes done", err=True)
            code = TERMINATED
    if outcome is not None and shown is not None and shown.earlier:
        _show_corrected(outcome, shown)
    code = _tell_one(outcome, code, reporter, time.perf_counter() - began, given)
    for remark in shown.remarks if shown is not None else ():
        reporter.say(remark, warning=True)
    if shown is not None and shown.count:
        reporter.say(f"QC report: {shown.folder / 'index.html'}; to open it: {opening(shown.folder)}")
    return code


def _show_corrected(outcome: Outcome, shown: Shown) -> None:
    from fastseg.past.build import show_corrected

    try:
        shown.remarks += show_corrected(outcome, shown.showing, shown.out)
    except OutputError as error:
        shown.remarks.append(f"the corrected mask is not in the QC report: {error}")


def _tell_one(
    outcome: Any, code: int | None, reporter: Reporter, seconds: float, given: dict[str, Any]
) -> int:
    from fastseg.cohort.report import run_report, volume_record
    from fastseg.sidecar import write_json

    if outcome is not None:
        code = Exit.OK if outcome.status.success else Exit.NONE_SUCCEEDED
        name = str(outcome.job.source)
        reporter.volume(name, str(outcome.status), outcome.message, outcome.notes, seconds)
        if given["verbose"] and "traceback" in outcome.record:
            click.echo(str(outcome.record["traceback"]), err=True)
        if outcome.status.success and outcome.status != "skipped":
            put(str(outcome.job.outputs.mask))
    assert code is not None
    if given["report"] is not None:
        volumes = [] if outcome is None else [volume_record(outcome, Path())]
        facts = _facts(given, "file")
        write_json(run_report(volumes, n_jobs=1, seconds=seconds, code=code, facts=facts), given["report"])
    return code


def _segment(job: Job, wanted: Wanted, given: dict[str, Any], showing: Showing | None) -> Outcome:
    load_needed_kernels(job.options.detector, job.options.contrast, given["models"], quiet=given["quiet"])
    from fastseg.cohort.segmenters import Segmenters
    from fastseg.cohort.work import Manner, Work, segment_file

    compute = compute_of(given, threads=given["threads"] or usable_threads())
    with (
        logging_to_stderr(logging.DEBUG if given["verbose"] else logging.WARNING),
        Segmenters(models=given["models"], compute=compute) as segmenters,
    ):
        segmenters.of(job.options)
        manner = Manner(wanted.kinds, rescue=given["rescue"], showing=showing)
        return segment_file(Work(job, manner, segmenters))


# --- many


def _plans(wanted: Wanted, given: dict[str, Any], showing: Showing | None, *, out: Path, root: Path) -> Plans:
    from fastseg.cohort.memory import budget_bytes, tame_allocator

    if given["cluster"] == "slurm" and not given["jobs"]:
        raise OptionError("--cluster slurm needs --jobs N: the workers to ask for")
    workers = given["jobs"] or given["threads"] or usable_threads(most=None)
    memory = budget_bytes(given["mem_gb"])
    load_needed_kernels(
        wanted.options.detector, wanted.options.contrast, given["models"], quiet=given["quiet"]
    )
    from fastseg.cohort.session import Plans
    from fastseg.cohort.stream.stream import Limits
    from fastseg.cohort.work import Manner

    tame_allocator()
    return Plans(
        out=out,
        root=root,
        manner=Manner(wanted.kinds, rescue=given["rescue"], showing=showing),
        limits=Limits(workers=workers, memory=memory, give_up_seconds=given["give_up"]),
        models=given["models"],
        compute=compute_of(given),
        shard=_shard(given),
        overwrite=given["overwrite"],
        retry_failed=given["retry_failed"],
        max_failures=1 if given["fail_fast"] else given["max_failures"],
        command=tuple(sys.argv[1:]),
    )


def _shard(given: dict[str, Any]) -> Shard:
    from fastseg.cohort.ledger import Shard

    return Shard.parse(given["shard"]) if given["shard"] else Shard()


def _session(plans: Plans, reporter: Reporter, given: dict[str, Any]) -> Session:
    from functools import partial

    from fastseg.cohort.session import Session

    gpus = plans.compute.gpus
    if given["cluster"]:
        if len(gpus) > 1:
            raise OptionError(
                f"--device {plans.compute.device}: a worker of --cluster takes one GPU: give --device cuda"
            )
        from fastseg.cohort.cluster.connection import open_cluster

        return Session(plans, reporter, executor=partial(open_cluster, given["cluster"]))
    if len(gpus) > 1:
        from fastseg.cohort.fleet.parent import open_fleet

        computes = [*map(plans.compute.on_gpu, gpus)]
        return Session(plans, reporter, executor=lambda plans, begins, _: open_fleet(computes, plans, begins))
    return Session(plans, reporter)


def _cohort(
    planned: Plan, wanted: Wanted, given: dict[str, Any], showing: Showing | None, *, bids: bool
) -> int:
    from fastseg.cli.cohort import Telling, run_list

    out = planned.out
    total = _shard(given).share(len(planned.jobs)) + len(planned.failures)
    reporter = Reporter(total, quiet=given["quiet"], as_json=given["log_json"])
    for remark in planned.remarks:
        reporter.say(remark)
    plans = _plans(wanted, given, showing, out=out, root=planned.root)
    with (
        _logging(given),
        _session(plans, reporter, given) as session,
        _shown(showing, out, planned.root) as shown,
    ):
        if bids:
            _describe(planned)
        telling = Telling(reporter, out, given["report"], _facts(given, planned.form), shown)
        return run_list(session, planned, telling)


def _stdin(given: dict[str, Any], wanted: Wanted, out: Path) -> int:
    from fastseg.cli.cohort import Telling, run_stdin
    from fastseg.cohort.plan.stdin import read_stdin_jobs

    reporter = Reporter(None, quiet=given["quiet"], as_json=given["log_json"])
    jobs = read_stdin_jobs(sys.stdin.buffer, out, wanted)
    showing = _showing(given, None)
    plans = _plans(wanted, given, showing, out=out, root=Path.cwd())
    with (
        _logging(given),
        _session(plans, reporter, given) as session,
        _shown(showing, out, Path.cwd()) as shown,
    ):
        telling = Telling(reporter, out, given["report"], _facts(given, "stdin"), shown)
        return run_stdin(session, jobs, telling)


def _describe(planned: Plan) -> None:
    """Write dataset_description.json, unless somebody has."""
    from fastseg.cohort.plan.bids import dataset_description
    from fastseg.sidecar import write_json

    path = planned.out / "dataset_description.json"
    if not path.exists():
        write_json(dataset_description(planned.root, planned.out), path)


def _logging(given: dict[str, Any]) -> AbstractContextManager[None]:
    level = logging.DEBUG if given["verbose"] else logging.WARNING
    return logging_to_stderr(level, engines=not given["quiet"] and not given["log_json"])
