"""Record a chapter's findings: each claim is measured once, where the chapter shows it, and shown as a box.

The box, the prose between marks (`recorded.fill`) and the table of the last chapter all come from the same record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import display

from rmtllmf_lib import recorded
from rmtllmf_lib.arrays import known_names
from rmtllmf_lib.chapters.verdicts.claims import Claim, assess
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

    Raises
    ------
    InputError
        for a label that is no claim's.
    """
    known = {claim.label: claim for claim in claims}
    rows = assess([known[label] for label in known_names(labels, known, "claim")], evidence).to_dict("records")
    box = [":::{admonition} Claim, verdict, evidence", ":class: verdict"]
    for row in rows:
        box += [f"**{row['label']}** {row['statement']} — **{row['verdict']}**: {row['ours']} {row['where']}.", ""]
        row["numbers"] = dict(_plain(row["numbers"]))
    lines = "\n".join(f"{row['label']}: {row['verdict']}; {row['ours']}" for row in rows)
    display({"text/plain": lines, "text/markdown": "\n".join([*box, ":::"])}, raw=True)
    for row in rows:
        display({recorded.FINDING: row}, raw=True)


def measured(**numbers: Any) -> None:
    """Record numbers, and words that follow from them, which the prose repeats between marks. Nothing is shown.

    Parameters
    ----------
    **numbers : float, str, Interval, or list or mapping of them
        The members of a list or mapping are recorded as `name.0` or `name.key`.
    """
    display({recorded.NUMBERS: dict(_plain(numbers))}, raw=True)


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
    DataFrame with the columns of `assess`, and `chapter`, the name of the notebook.

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
    return pd.DataFrame([found[claim.label] for claim in claims])


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
