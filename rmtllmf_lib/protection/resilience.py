"""Protections of the fused model (Section III): R-MTLLMF, its parts, controls that ignore the link, and ours.

A protection turns what the base station holds, a `Station`, into a model with its cost, a `Protected`. It makes a model
from the received vectors, and may then realign it; `PROTECTIONS` lists all of them by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt

from rmtllmf_lib.arrays import Real, one_of, real_array
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import choose_lambda, fuse, lambda_n
from rmtllmf_lib.fusion.mergers import CALIBRATIONS, MERGERS, merge, merger_named
from rmtllmf_lib.fusion.tsv import tsv_merge
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.task_vector import TaskVector, Weights, cosine_matrix
from rmtllmf_lib.protection.embeddings import EMBEDDING_KINDS, reload_embeddings
from rmtllmf_lib.protection.memory import Memory
from rmtllmf_lib.protection.realign import REALIGNMENT, memory_loss, realign
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.seeds import generator_for
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.transport.coded_payload import LADDER, Quantised
from rmtllmf_lib.validated import validated_call, validated_init

# Fractions of lambda_N that the line search tries: noise favours a smaller lambda, at worst 0.
LAMBDA_PARTS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)


_FROZEN = ("embeddings",)

_DROPPED = 1  # purpose of random numbers: the entries that a merger drops; the order of images has the seed itself


@validated_init
@dataclass(frozen=True, eq=False)
class Station:
    """What the base station holds once the task vectors have arrived.

    Attributes
    ----------
    backbone : Backbone
    received : dict of task name to TaskVector
        The received tau^_q of the tasks to fuse; without users in outage.
    lam : float
        lambda_N, as chosen without noise.
    heads : dict of task name to Head
    memory : Memory or None
        A few training inputs of the fused tasks.
    error_cov : (user, user) array or None
        Covariance of the users' errors in one parameter, where the link gives it.
    recipe : Recipe
        Of the realignment; each protection decides which groups are frozen.
    seed : int
        Seeds the order of the inputs in the realignment.
    device, autocast
        As in `finetune`.
    outage : tuple of task names
        Tasks to fuse whose vectors did not arrive; what the memory holds of them is still used.
    """

    backbone: Backbone
    received: Mapping[str, TaskVector]
    lam: float
    heads: Mapping[str, Head]
    memory: Memory | None = None
    error_cov: Real | None = None
    recipe: Recipe = REALIGNMENT
    seed: NonNegativeInt = 0
    device: str = "cpu"
    autocast: str | None = None
    outage: tuple[str, ...] = ()

    __repr__ = short_repr


@dataclass(frozen=True, eq=False)
class Protected:
    """A protected model and its budget.

    Attributes
    ----------
    weights : Weights
    lam : float
        The coefficient that was used; the mean where each user has its own.
    samples, bytes : int
        Inputs of the memory that were used, and the bytes that store them.
    steps : int
        Of training: of the realignment, and of specialists that the station trains itself.
    seconds : float
        Wall time of the protection, including all fusions.
    """

    weights: Weights
    lam: float
    samples: int
    bytes: int
    steps: int
    seconds: float

    __repr__ = short_repr


def _fused(station: Station, lam: float | Sequence[float]) -> Weights:
    return fuse(station.backbone.weights, list(station.received.values()), lam)


def _memory(station: Station) -> Memory:
    if station.memory is None:
        raise InputError("this protection needs a memory of training inputs: draw one, see draw_memory")
    return station.memory.of((*station.received, *station.outage))


@validated_call
def search_lambda(station: Station, parts: Sequence[float] = LAMBDA_PARTS) -> float:
    """The lambda whose model, with reloaded embeddings, has the smallest cross-entropy on the memory.

    Parameters
    ----------
    parts : numbers
        Fractions of `station.lam` to try. 0 is the base itself.

    Raises
    ------
    InputError
        for a station without a memory, or no fraction.
    """
    memory, base = _memory(station), station.backbone.weights

    def score(lam: float) -> float:
        model = reload_embeddings(_fused(station, lam), base)
        return -min(memory_loss(station.backbone, model, memory, station.heads, device=station.device), 1e9)

    return choose_lambda(score, [part * station.lam for part in parts])[0]


@validated_call
def wiener_weights(received: Sequence[TaskVector], error_cov: Real) -> Real:
    """Coefficients c_q that minimise the mean square of `sum c_q tau^_q - sum tau_q`; they need no data.

    With T the Gram matrix of the sent vectors per parameter and R the covariance of the errors, `c = (T + R)^-1 T 1`.
    The sent vectors are unknown, but over very many parameters the Gram matrix G of the received ones is close to
    T + R, so `c = 1 - G^-1 R 1`. For equal users with independent errors, `c = 1 - mu / (1 + mu)` at scale "task".
    Embeddings are excluded, since they are reloaded.

    Parameters
    ----------
    received : sequence of TaskVector
        tau^_q, one per user.
    error_cov : (user, user) float
        Covariance of the errors in one parameter, see `Scenario.error_cov`.

    Returns
    -------
    (user,) float64
        In the order of `received`; to be multiplied by lambda_N.

    Raises
    ------
    InputError
        for no vector, or a covariance of another shape, or that is not symmetric positive semidefinite and finite.
    """
    users, R = len(received), real_array(error_cov, "error_cov")
    if not users or R.shape != (users, users):
        raise InputError(f"error_cov has shape {R.shape}: expected (user, user) = {(users, users)}, one at least")
    rounding = 1e-6 * abs(R).max()
    if (abs(R - R.T) > rounding).any() or np.linalg.eigvalsh((R + R.T) / 2)[0] < -rounding:
        raise InputError(f"error_cov is {R.tolist()}: expected a symmetric positive semidefinite matrix")
    if not R.any():
        return np.ones(users)
    parts = [tau.without("embeddings") for tau in received]
    norms = np.array([part.norm for part in parts])
    layout = received[0].layout
    numbers = layout.size - sum(where.stop - where.start for where in layout.ranges("embeddings"))
    gram = cosine_matrix(parts) * np.outer(norms, norms) / numbers
    return 1 - np.linalg.lstsq(gram, R.sum(axis=1))[0]


class _Start(NamedTuple):
    """The model before realignment, its lambda, and the steps of training that it took."""

    weights: Weights
    lam: float
    steps: int = 0


def _unprotected(station: Station) -> _Start:
    return _Start(_fused(station, station.lam), station.lam)


def _reloaded(station: Station, kinds: Sequence[str] | None = None) -> _Start:
    fused = _fused(station, station.lam)
    return _Start(reload_embeddings(fused, station.backbone.weights, kinds), station.lam)


def _searched(station: Station) -> _Start:
    lam = search_lambda(station)
    return _Start(reload_embeddings(_fused(station, lam), station.backbone.weights), lam)


def _wiener(station: Station) -> _Start:
    if station.error_cov is None:
        raise InputError("the Wiener weights need the covariance of the errors: give the station's error_cov")
    coefficients = station.lam * wiener_weights(list(station.received.values()), station.error_cov)
    fused = _fused(station, coefficients.tolist())
    return _Start(reload_embeddings(fused, station.backbone.weights), float(coefficients.mean()))


def _tsv(station: Station) -> _Start:
    if not station.received:
        raise InputError(
            f"all users are in outage, {', '.join(station.outage) or 'none was named'}: there is nothing to fuse; "
            "lower their MSE, allow more channel uses, or take a protection that ignores the link"
        )
    merged = _merged_once("tsv", *station.received.values())
    return _Start(station.backbone.weights + station.lam * merged, station.lam)


def _merged(station: Station, merger: str, *, reload: bool = False) -> _Start:
    base = station.backbone.weights
    taus = list(station.received.values())
    if "generator" in merger_named(merger).needs:
        merged = merge(merger, taus, generator=generator_for(station.seed, _DROPPED))
    else:
        merged = _merged_once(merger, *taus)
    model = base + station.lam * merged
    return _Start(reload_embeddings(model, base) if reload else model, station.lam)


@lru_cache(maxsize=1)
def _merged_once(merger: str, *taus: TaskVector) -> TaskVector:
    """The same vectors merged once, for all lambdas that are tried with them one after the other."""
    return merge(merger, list(taus))


def _base(station: Station) -> _Start:
    return _Start(station.backbone.weights, 0.0)


@validated_call
def few_shot_specialists(station: Station) -> dict[str, TaskVector]:
    """Task vectors that the station trains itself, each on one task's memory: what it can fuse without a link.

    Whoever has the same memory and the same seed gets the same vectors.

    Raises
    ------
    InputError
        for a station without a memory of its tasks.
    """
    memory, base = _memory(station), station.backbone.weights
    return {name: _trained(station, base, memory.of([name]), _FROZEN) - base for name in memory.splits}


def _few_shot(station: Station) -> _Start:
    own = few_shot_specialists(station)
    merged = tsv_merge(list(own.values()))
    return _Start(station.backbone.weights + station.lam * merged, station.lam, station.recipe.steps * len(own))


def _in_basis(station: Station) -> _Start:
    return _tsv(station)._replace(steps=station.recipe.steps * len(station.received))


def _trained(station: Station, start: Weights, memory: Memory, freeze: tuple[str, ...]) -> Weights:
    return realign(
        station.backbone, start, memory, station.heads, replace(station.recipe, freeze=freeze),
        generator=torch.Generator().manual_seed(station.seed), device=station.device, autocast=station.autocast,
    )  # fmt: skip


@validated_init
@dataclass(frozen=True)
class Protection:
    """One entry of `PROTECTIONS`.

    Attributes
    ----------
    title : str
        For figures.
    start : function of a Station
        Gives the model before realignment, its lambda, and the steps of training that it took.
    freeze : tuple of groups, optional
        Realign that model with these groups frozen. None: no realignment.
    receives : bool
        Whether it uses what was received; False for controls that ignore the link.
    starts_from_memory : bool
        Whether the model before realignment needs a memory.
    scales : bool
        Whether the model depends on the lambda that is given.
    published_lam : function of the number of tasks
        The lambda of its merger's authors, where none is given or chosen.
    sends : tuple of Quantised, optional
        What users send with a code in place of their task vectors, the best first, see `coded_payload.plan`. None:
        the vectors themselves, which arrive with errors.
    basis : int, optional
        Rank of the basis in which users send, with all of their power, what the memory does not tell, see
        `few_shot_basis.received_cores`. Both ends make it from the memory, by `few_shot_specialists`.
    draws : bool
        Whether its merger draws random numbers, from the station's seed.
    """

    title: str
    start: Callable[[Station], tuple[Weights, float, int]]
    freeze: tuple[str, ...] | None = None
    receives: bool = True
    starts_from_memory: bool = False
    scales: bool = True
    published_lam: Callable[[int], float] = lambda_n
    sends: tuple[Quantised, ...] | None = None
    basis: PositiveInt | None = None
    draws: bool = False

    __repr__ = short_repr

    @property
    def trains(self) -> bool:
        """Whether it realigns."""
        return self.freeze is not None

    @property
    def remembers(self) -> bool:
        """Whether it needs a memory."""
        return self.trains or self.starts_from_memory


_TSV_LAMBDA = merger_named("tsv").suggested_lambda


_MERGE = "merge-"  # before the name of a merger

# Of the library's mergers those that need the vectors alone, and perhaps random numbers. Others depend on images, or on
# the task of an image, for which a condition of a study has no place.
VECTORS_ALONE = (
    *(name for name, merger in MERGERS.items() if {*merger.needs} <= {"generator"}),
    *(f"arithmetic+{suffix}" for suffix in CALIBRATIONS),
)


def _merging() -> dict[str, Protection]:
    """Two entries for each of these mergers: merged and used as it is, and protected as R-MTLLMF is."""
    found = {}
    for name in VECTORS_ALONE:
        merger = merger_named(name)
        found[f"{_MERGE}{name}"] = Protection(
            f"{merger.title}, merged",
            partial(_merged, merger=name),
            published_lam=merger.suggested_lambda,
            draws="generator" in merger.needs,
        )
        found[f"{_MERGE}{name}-realigned"] = Protection(
            f"{merger.title}, realigned", partial(_merged, merger=name, reload=True), _FROZEN,
            published_lam=merger.suggested_lambda, draws="generator" in merger.needs,
        )  # fmt: skip
    return found


PROTECTIONS: Mapping[str, Protection] = {
    "unprotected": Protection("unprotected", _unprotected),
    # Named by the paper's module, "parameter freezing": clean embeddings, and no training during which to freeze them.
    "freeze": Protection("embeddings reloaded", _reloaded),
    **{
        f"freeze-{kind}": Protection(f"{kind} embeddings reloaded", partial(_reloaded, kinds=(kind,)))
        for kind in EMBEDDING_KINDS
    },
    "realign": Protection("realigned", _unprotected, ()),
    "reload-train-all": Protection("reloaded, all trained", _reloaded, ()),
    "rmtllmf": Protection("R-MTLLMF", _reloaded, _FROZEN),
    **{
        f"rmtllmf-{kind}": Protection(f"R-MTLLMF, {kind} embeddings only", partial(_reloaded, kinds=(kind,)), _FROZEN)
        for kind in EMBEDDING_KINDS
    },
    "noise-aware-lambda": Protection("noise-aware lambda", _searched, starts_from_memory=True),
    "noise-aware": Protection("noise-aware lambda, realigned", _searched, _FROZEN, starts_from_memory=True),
    "wiener-lambda": Protection("Wiener weights", _wiener),
    "wiener": Protection("Wiener weights, realigned", _wiener, _FROZEN),
    "coded-tsv": Protection("coded low rank, TSV-Merge", _tsv, sends=LADDER, published_lam=_TSV_LAMBDA),
    "coded-tsv-realigned": Protection(
        "coded low rank, TSV-Merge, realigned", _tsv, _FROZEN, sends=LADDER, published_lam=_TSV_LAMBDA
    ),
    "base": Protection("base, zero-shot", _base, receives=False, scales=False),
    "control": Protection("base, realigned", _base, _FROZEN, receives=False, scales=False),
    "few-shot-specialists": Protection(
        "own few-shot specialists, merged, realigned",
        _few_shot,
        _FROZEN,
        receives=False,
        starts_from_memory=True,
        published_lam=_TSV_LAMBDA,
    ),
    "few-shot-basis": Protection(
        "cores in a few-shot basis, TSV-Merge, realigned",
        _in_basis,
        _FROZEN,
        starts_from_memory=True,
        published_lam=_TSV_LAMBDA,
        basis=4,
    ),
    **_merging(),
}


@validated_call
def protection_named(name: str) -> Protection:
    """The entry of `PROTECTIONS`; an InputError that lists the names for an unknown one.

    `merge-<merger>` and `merge-<merger>-realigned` take any of the mergers `VECTORS_ALONE`.
    """
    if isinstance(name, str) and name not in PROTECTIONS and name.startswith(_MERGE):
        merger = name.removeprefix(_MERGE).removesuffix("-realigned")
        needs = () if ":" in merger else merger_named(merger).needs  # which suggests names for one that is unknown
        raise InputError(
            f"protection is {name!r}, and {merger!r} {f'needs {needs[0]}' if needs else 'is not one of those'}: "
            f"expected {_MERGE} and a merger that needs the vectors alone, {', '.join(VECTORS_ALONE)}; for others see "
            "`training.merging.merge_suite`"
        )
    return PROTECTIONS[one_of(name, PROTECTIONS, "protection")]


@validated_call
def protect(name: str, station: Station, *, realigned: bool = True) -> Protected:
    """Apply a protection, and measure its cost.

    Parameters
    ----------
    name : str
        One of `PROTECTIONS`.
    realigned : bool
        False stops before the realignment, if the protection has one.

    Raises
    ------
    InputError
        for an unknown name, or something that the station lacks: a memory, the covariance of the errors.
    """
    protection = protection_named(name)
    started = time.perf_counter()
    weights, lam, steps = protection.start(station)
    used = _memory(station) if protection.starts_from_memory else Memory(0, {})
    if realigned and protection.freeze is not None:
        steps += station.recipe.steps
        used = _memory(station)
        weights = _trained(station, weights, used, protection.freeze)
    return Protected(weights, lam, used.samples, used.bytes, steps, time.perf_counter() - started)
