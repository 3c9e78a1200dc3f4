"""What the check found, as JSON and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tools.gpu.running import Outcome

__all__ = ["as_json", "as_markdown", "file_stem", "gpu_name", "verdict"]


def gpu_name(outcomes: Sequence[Outcome], number: int) -> str:
    """Name of the GPU that was checked; empty where there was none."""
    for outcome in outcomes:
        for row in outcome.rows:
            if row.get("what") == f"GPU {number}":
                return str(row["value"]).split(",")[0]
    return ""


def file_stem(name: str, date: str) -> str:
    """Name of the report's files, from the GPU's name: nvidia-h200-2026-01-31."""
    return f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-') or 'no-gpu'}-{date}"


def verdict(outcomes: Sequence[Outcome]) -> tuple[int, str]:
    """Exit code, and a sentence.

    Returns
    -------
    code : 0 nothing was wrong, 1 something was, 3 nothing could be checked
    sentence : which says the same, and what was not checked
    """
    bad = [outcome for outcome in outcomes if outcome.bad]
    checked = [o for o in outcomes if o.section.needs_gpu and o.state != "skipped"]
    skipped = [o for o in outcomes if o.state == "skipped"]
    if bad:
        return 1, f"{_titles(bad)}: see there"
    if not checked:
        why = next((outcome.reasons[0] for outcome in skipped if outcome.reasons), "no section was asked for")
        return 3, f"nothing could be checked: {why}"
    short = [outcome for outcome in checked if outcome.left_out]
    if skipped or short:
        return (
            0,
            f"nothing was wrong in what was checked; not, or not wholly, checked: {_titles(skipped + short)}",
        )
    return 0, "everything was checked, and nothing was wrong"


def as_json(facts: Mapping[str, object], outcomes: Sequence[Outcome]) -> dict[str, object]:
    """The whole report; `facts` come first."""
    code, sentence = verdict(outcomes)
    sections = [
        {
            "section": outcome.section.name,
            "title": outcome.section.title,
            "state": outcome.state,
            "seconds": round(outcome.seconds, 1),
            "reasons": outcome.reasons,
            "left_out": outcome.left_out,
            "rows": outcome.rows,
        }
        for outcome in outcomes
    ]
    return {**facts, "exit_code": code, "verdict": sentence, "sections": sections}


def as_markdown(facts: Mapping[str, object], outcomes: Sequence[Outcome]) -> str:
    """The report for people: a table of sections, then a table of each, then what was not checked."""
    lines = [f"# {facts['gpu'] or 'No GPU'}, {facts['date']}", "", f"`{facts['command']}`"]
    lines += [f"on {facts['host']}: {verdict(outcomes)[1]}.", ""]
    summary = [
        {
            "section": outcome.section.title,
            "result": outcome.state,
            "s": round(outcome.seconds, 1),
            "why": "<br>".join(outcome.reasons) if outcome.bad else "",
        }
        for outcome in outcomes
    ]
    lines += _table(summary)
    for outcome in outcomes:
        if outcome.rows:
            lines += ["", f"## {outcome.section.title}", "", *_table(outcome.rows)]
    missing = _missing(outcomes)
    if missing:
        lines += ["", "## Not checked", "", *(f"- {what}" for what in missing)]
    return "\n".join(lines) + "\n"


def _missing(outcomes: Sequence[Outcome]) -> list[str]:
    """What was not checked: the sections that a reason holds for, and the reason."""
    sections: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        reasons = outcome.reasons if outcome.state == "skipped" else []
        for what in dict.fromkeys([*reasons, *outcome.left_out]):
            sections.setdefault(what, []).append(outcome)
    return [f"{_titles(concerned)}: {what}" for what, concerned in sections.items()]


def _titles(outcomes: Sequence[Outcome]) -> str:
    return ", ".join(dict.fromkeys(outcome.section.title.split(":")[0] for outcome in outcomes))


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    numeric = {key for key in keys if all(isinstance(row.get(key), int | float | None) for row in rows)}
    head = "|".join(f" {key.replace('_', ' ')} " for key in keys)
    rule = "|".join("--:" if key in numeric else "---" for key in keys)
    body = ["|".join(f" {_cell(row.get(key, ''))} " for key in keys) for row in rows]
    return [f"|{line}|" for line in (head, rule, *body)]


def _cell(value: object) -> str:
    if value is None:
        return "not known"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return " ".join(str(value).replace("|", "\\|").split())
