"""The mergers by name: what each needs, the lambda that its authors suggest, and the grid to search around it.

`merge("tsv", taus)` makes one vector of several, for `arithmetic.fuse` to add to the base with one lambda. A name with
`+svc` or `+lines` calibrates the result. `file.py:function` and `package.module:function` name a merger of your own.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache, wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion import entries, quadratic, robust, scaling, spectra
from rmtllmf_lib.fusion.arithmetic import LAMBDA_GRID, lambda_n
from rmtllmf_lib.fusion.tensors import require_mergeable
from rmtllmf_lib.fusion.tsv import tsv_merge
from rmtllmf_lib.model.layout import require_finite
from rmtllmf_lib.model.task_vector import TaskVector, require_alike
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.validated import validated_call

_AROUND = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0)

# What a rule may need beyond the vectors, by the name of its argument.
NEEDS: Mapping[str, str] = {
    "generator": "a generator, torch.Generator().manual_seed(…)",
    "task": "the position of the task whose images are classified: a model for each task, not one for all",
    "grams": "Gram matrices of the inputs on images of each task, see training.merging.input_grams",
    "fishers": "Fisher diagonals on images of each task, see training.merging.fisher_diagonal",
    "coefficients": "coefficients learnt on images of each task, see training.merging.learn_coefficients",
}


@dataclass(frozen=True)
class Merger:
    """One entry of `MERGERS`.

    Attributes
    ----------
    title : str
        For tables and figures.
    source : str
        Where it comes from.
    rule : function
        (taus, *, what it needs, settings with defaults) to a TaskVector.
    lam : float or None
        The lambda that suits it where none is chosen; None for lambda_N of Eq. (6).
    needs : tuple of str
        Of `NEEDS`.
    learns : "", "entropy" or "cross-entropy"
        By which the coefficients are learnt.
    by_depth : bool
        Whether there is one for every depth.
    """

    title: str
    source: str
    rule: Callable[..., TaskVector]
    lam: float | None = 1.0
    needs: tuple[str, ...] = ()
    learns: str = ""
    by_depth: bool = False

    __repr__ = short_repr

    @property
    def grid(self) -> tuple[float, ...]:
        """Lambdas to try on validation images, from 0, the base itself; widened where the best lies at its end."""
        return LAMBDA_GRID if self.lam is None else tuple(round(self.lam * part, 4) for part in _AROUND)

    @validated_call
    def suggested_lambda(self, n: int) -> float:
        """The lambda for n task vectors where none is chosen."""
        return lambda_n(n) if self.lam is None else self.lam


_WEIGHTED = (scaling.weighted, 1.0, ("coefficients",))

MERGERS: Mapping[str, Merger] = {
    "arithmetic": Merger("task arithmetic", "Ilharco et al. 2023", entries.arithmetic, None),
    "average": Merger("average", "Wortsman et al. 2022", entries.average),
    "ties": Merger("TIES", "Yadav et al. 2023", entries.ties),
    "ties-sum": Merger("TIES, summed", "public code of Yadav et al. 2023", entries.ties_sum, None),
    "dare": Merger("DARE", "Yu et al. 2024", entries.dare, None, ("generator",)),
    "dare-ties": Merger("DARE and TIES", "Yu et al. 2024", entries.dare_ties, 1.0, ("generator",)),
    "breadcrumbs": Merger("Breadcrumbs", "Davari and Belilovsky 2024", entries.breadcrumbs, None),
    "magmax": Merger("MagMax", "Marczak et al. 2024", entries.magmax, 0.5),
    "pcb": Merger("PCB", "Du et al. 2024", entries.pcb, 1.2),
    "consensus": Merger("Consensus", "Wang et al. 2024", entries.consensus, None),
    "tall": Merger("TALL masks", "Wang et al. 2024", entries.tall, 1.0, ("task",)),
    "emr": Merger("EMR", "Huang et al. 2024", entries.emr, 1.0, ("task",)),
    "model-stock": Merger("Model Stock", "Jang et al. 2024", scaling.model_stock),
    "tsv": Merger("TSV", "Gargiulo et al. 2025", tsv_merge),
    "iso-c": Merger("Iso-C", "Marczak et al. 2025", spectra.iso_c, 1.4),
    "iso-cts": Merger("Iso-CTS", "Marczak et al. 2025", spectra.iso_cts, 1.6),
    "wudi": Merger("WUDI, closed form", "Cheng et al. 2025", quadratic.wudi),
    "fisher": Merger("Fisher", "Matena and Raffel 2022", quadratic.fisher, 1.0, ("fishers",)),
    "regmean": Merger("RegMean", "Jin et al. 2023", quadratic.regmean, 1.0, ("grams",)),
    "adamerging": Merger("AdaMerging, by task", "Yang et al. 2024", *_WEIGHTED, "entropy"),
    "adamerging-layer": Merger("AdaMerging, by depth", "Yang et al. 2024", *_WEIGHTED, "entropy", True),
    "few-shot": Merger("few-shot coefficients, by task", "this book", *_WEIGHTED, "cross-entropy"),
    "few-shot-layer": Merger("few-shot coefficients, by depth", "this book", *_WEIGHTED, "cross-entropy", True),
    "median": Merger("coordinate median", "Yin et al. 2018", robust.coordinate_median),
    "trimmed-mean": Merger("trimmed mean", "Yin et al. 2018", robust.trimmed_mean),
    "geometric-median": Merger("geometric median", "Pillutla et al. 2022", robust.geometric_median),
    "multi-krum": Merger("Multi-Krum", "Blanchard et al. 2017", robust.multi_krum),
    "centred-clipping": Merger("centred clipping", "Karimireddy et al. 2021", robust.centred_clipping),
}

# What may be done to any merger's result, by the suffix of its name.
CALIBRATIONS: Mapping[str, tuple[str, str, Callable[..., TaskVector]]] = {
    "svc": ("singular value calibration", "Li et al. 2026", spectra.svc),
    "lines": ("LiNeS", "Wang et al. 2025", scaling.lines),
}


@validated_call
def merger_named(name: str) -> Merger:
    """The merger of that name: of `MERGERS`, with `+svc` or `+lines`, or a function of one's own.

    Parameters
    ----------
    name : str
        As in "tsv", "arithmetic+svc", "mine.py:merge" or "package.module:merge". A file or module is executed, once
        until the file changes.

    Raises
    ------
    InputError
        for a name that is unknown, which lists close ones, or a function that is not there.
    """
    plain, plus, suffix = name.partition("+")
    if plus and suffix in CALIBRATIONS:
        merger, (title, source, calibrate) = merger_named(plain), CALIBRATIONS[suffix]
        rule = merger.rule
        # calibrated results count shared directions once, or carry 1/N: lambda is 1 as for a mean
        return replace(
            merger,
            title=f"{merger.title}, {title}",
            source=f"{merger.source}; {source}",
            rule=lambda taus, **given: calibrate(taus, rule(taus, **given)),
            lam=merger.lam or 1.0,
        )
    if ":" in name:
        own = _own(name)
        needs = tuple(key for key in inspect.signature(own).parameters if key in NEEDS)
        return Merger(name, name, _checked(own), needs=needs)
    if name not in MERGERS:
        known = [*MERGERS, *(f"arithmetic+{suffix}" for suffix in CALIBRATIONS)]
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known are {', '.join(known)}"
        raise InputError(f"merger is {name!r}: expected a name of MERGERS, or file.py:function; {hint}")
    return MERGERS[name]


@validated_call
def merge(name: str, taus: Sequence[TaskVector], **given: Any) -> TaskVector:
    """Merge task vectors by the merger of that name.

    Parameters
    ----------
    name : str
        See `merger_named`.
    **given
        What the merger needs (`NEEDS`; more than that does no harm), and its own settings, such as `keep=0.1`.

    Returns
    -------
    TaskVector
        To be scaled by lambda: `Merger.suggested_lambda`, or one chosen on validation images from `Merger.grid`.

    Raises
    ------
    InputError
        for an unknown name, something that the merger needs and does not get, a setting that it has not, or a result
        that is no task vector of the same base; and what the merger itself refuses.
    """
    merger = merger_named(name)
    for need in merger.needs:
        if given.get(need) is None:
            raise InputError(f"merger {name!r} needs {need}, which is not given: expected {NEEDS[need]}")
    wanted = {key: value for key, value in given.items() if key in merger.needs or key not in NEEDS}
    settings = {key for key in wanted if key not in merger.needs}
    parameters = inspect.signature(merger.rule).parameters
    if "+" in name and settings:
        raise InputError(f"{name!r} takes no settings, got {', '.join(sorted(settings))}: call its two functions")
    if unknown := sorted(settings - parameters.keys()):
        raise InputError(
            f"merger {name!r} has no setting {unknown[0]!r}: expected some of {', '.join([*parameters][1:]) or 'none'}"
        )
    merged = merger.rule(list(taus), **wanted)  # every rule checks the vectors
    if not isinstance(merged, TaskVector):
        raise InputError(f"merger {name!r} returned a {type(merged).__name__}: expected a TaskVector")
    require_alike([taus[0], merged])
    require_finite(merged.layout, merged.values, f"the result of merger {name!r}: ")
    return merged


def _checked(own: Callable[..., TaskVector]) -> Callable[..., TaskVector]:
    """A function of the user's own that refuses what the library's rules refuse."""

    @wraps(own)  # and so with its signature
    def rule(taus: Sequence[TaskVector], **given: Any) -> TaskVector:
        require_mergeable(taus)
        return own(taus, **given)

    return rule


def _own(name: str) -> Callable[..., TaskVector]:
    """The function `file.py:function` or `package.module:function`."""
    place, _, function = name.rpartition(":")
    if place.endswith(".py"):
        path = Path(place).expanduser()
        if not path.is_file():
            raise InputError(f"merger is {name!r}, and {path} is no file: expected file.py:function")
        module = _executed(path.resolve(), path.read_bytes())
    else:
        try:
            module = importlib.import_module(place)
        except (ImportError, TypeError, ValueError) as error:
            raise InputError(f"merger is {name!r}, and {place!r} cannot be imported: {error}") from None
    found = getattr(module, function, None)
    if not callable(found):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"merger is {name!r}, and {place} has no function {function!r}: expected one of {names}")
    return found


@lru_cache
def _executed(path: Path, source: bytes) -> ModuleType:
    """The module in a file; a command looks its merger up several times, and what the file does is done once."""
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
    return module


def merger_table() -> pd.DataFrame:
    """One row for each merger: merger, title, source, needs, lambda, and the calibrations of any of them last."""
    rows = [
        (name, merger.title, merger.source, ", ".join(merger.needs) or "-", merger.lam or "lambda_N")
        for name, merger in MERGERS.items()
    ]
    rows += [(f"…+{name}", title, source, "-", 1.0) for name, (title, source, _) in CALIBRATIONS.items()]
    return pd.DataFrame(rows, columns=["merger", "title", "source", "needs", "lambda"])
