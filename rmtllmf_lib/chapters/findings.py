"""Record a chapter's findings: each claim is measured once, where the chapter shows it, and shown as a box.

The box, the prose between marks (`recorded.fill`) and the table of the last chapter all come from the same record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import display

from rmtllmf_lib import recorded
from rmtllmf_lib.arrays import known_names
from rmtllmf_lib.chapters.verdicts.claims import Claim, assess
from rmtllmf_lib.chapters.verdicts.comparisons import Comparison, adjusted
from rmtllmf_lib.chapters.verdicts.evidence import Interval
from rmtllmf_lib.chapters.verdicts.registry import CLAIMS
from rmtllmf_lib.errors import InputError


def record(evidence: Any, labels: Sequence[str], claims: Iterable[Claim] = CLAIMS) -> None:
    """Measure claims, record what was found, and show it as a box of verdicts.

    Parameters
    ----------
    evidence : LinkEvidence or ModelEvidence
        What the claims' rules look at.
    labels : list of str
        Of the claims, in the order of the box.
    claims : claims
        By default the paper's; a box of others says that they are our own.

    Raises
    ------
    InputError
        for a label that is no claim's.
    """
    known = {claim.label: claim for claim in claims}
    rows = assess([known[label] for label in known_names(labels, known, "claim")], evidence).to_dict("records")
    whose = "Claim" if claims is CLAIMS else "Our claim"
    box = [f":::{{admonition}} {whose}, verdict, evidence", ":class: verdict"]
    for row in rows:
        statement = row["statement"].rstrip(".")
        box += [f"**{row['label']}** {statement} — **{row['verdict']}**: {row['ours']} {row['where']}.", ""]
        row["numbers"] = dict(_plain(row["numbers"]))
        row["rests_on"] = _compared(row["rests_on"])
    lines = "\n".join(f"{row['label']}: {row['verdict']}; {row['ours']}" for row in rows)
    shown = {"text/plain": lines, "text/markdown": "\n".join([*box, ":::"])}
    display({**shown, recorded.FINDING: rows}, raw=True)


def measured(**numbers: Any) -> None:
    """Record numbers, and words that follow from them, which the prose repeats between marks. Nothing is shown.

    Parameters
    ----------
    **numbers : float, str, Interval, or list or mapping of them
        The members of a list or mapping are recorded as `name.0` or `name.key`.
    """
    display({recorded.NUMBERS: dict(_plain(numbers))}, raw=True)


def _compared(rests_on: Comparison | None) -> dict[str, Any] | None:
    return None if rests_on is None else {**asdict(rests_on), "p": float(f"{rests_on.p:.4g}")}


def _plain(numbers: Mapping[str, Any]) -> Iterator[tuple[str, str | float]]:
    """Yield names with text, or with floats of ten significant digits; intervals as "53 ± 2"."""
    for name, value in numbers.items():
        if isinstance(value, Interval):
            yield name, value.points
        elif isinstance(value, str):
            yield name, value
        elif isinstance(value, Mapping | pd.Series):
            yield from _plain({f"{name}.{key}": each for key, each in value.items()})
        elif isinstance(value, list | tuple | np.ndarray):
            yield from _plain({f"{name}.{place}": each for place, each in enumerate(value)})
        else:
            number = float(value)
            yield name, float(f"{number:.10g}") if math.isfinite(number) else str(number)


def collected(folder: str | Path = "", claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """The findings that the executed notebooks of a folder record, one row per claim, in the order of `claims`.

    Parameters
    ----------
    folder : path
        Default: the current one or, if no notebook in it records a finding, its folder `notebooks`.

    Returns
    -------
    DataFrame with the columns of `assess` but for rests_on, and with

        chapter  name of the notebook
        group    of the claim, see `Claim`
        p, sure, seeds  of the comparison that the verdict rests on; NaN, False and 0 where it rests on none
        q        p value adjusted for the number of all claims that rest on one, see `adjusted`

    Raises
    ------
    InputError
        for a claim that no notebook records, or that two do.
    """
    found: dict[str, dict[str, Any]] = {}
    chapters = _chapters(Path(folder)) if folder else _chapters(Path()) or _chapters(Path("notebooks"))
    for path, records in chapters.items():
        for label, finding in records.items():
            if label in found:
                raise InputError(f"{label!r} is recorded by {found[label]['chapter']} and {path.stem}: expected by one")
            found[label] = finding | {"chapter": path.stem}
    if missing := [claim.label for claim in claims if claim.label not in found]:
        raise InputError(
            f"no notebook in {folder or 'notebooks'} records {', '.join(missing[:5])}: expected the executed chapters "
            "there; execute them with `rmtllmf run` or `make notebooks`"
        )
    rows = [_row(found[claim.label]) | {"group": claim.group} for claim in claims]
    table = pd.DataFrame(rows)
    return table.assign(q=adjusted(table["p"]))


def _row(finding: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded finding as a row."""
    if "rests_on" not in finding:
        raise InputError(
            f"{finding['label']!r} of {finding['chapter']}.ipynb does not say what its verdict rests on: expected the "
            "record of this version; execute the chapter again"
        )
    rests_on = finding.pop("rests_on") or {"sure": False, "p": math.nan, "seeds": 0}
    return finding | rests_on


def _chapters(folder: Path) -> dict[Path, dict[str, dict[str, Any]]]:
    """The notebooks of a folder that record findings; those of a failed or running execution are left out."""
    found = {}
    for path in sorted(folder.glob("*.ipynb")):
        if path.name.startswith(".") or path.name.endswith(".failed.ipynb"):
            continue
        try:
            found[path] = recorded.findings(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a notebook ({error!r}): execute the chapter again, or remove it") from None
    return {path: records for path, records in found.items() if records}
