"""Protection of the fused model (Section III), the paper's own, its parts, controls without it, and one of ours.

A protection is a plain function of what the base station holds, a `Station`, to a model with what it cost, a
`Protected`; `PROTECTIONS` has them by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from rmtllmf_lib.arrays import Real, one_of
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.fusion import choose_lambda, fuse
from rmtllmf_lib.model.task_vector import TaskVector, Weights, cosine_matrix
from rmtllmf_lib.protection.memory import Memory
from rmtllmf_lib.protection.realign import REALIGNMENT, memory_loss, realign
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.heads import Head

EMBEDDING_KINDS = ("position", "patch", "class")

_ENTRY = {"position": "visual.positional_embedding", "patch": "visual.conv1.", "class": "visual.class_embedding"}

# Parts of lambda_N that the line search tries: noise asks for less than without noise, at worst for nothing.
LAMBDA_PARTS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)


def reload_embeddings(fused: Weights, base: Weights, kinds: Sequence[str] = EMBEDDING_KINDS) -> Weights:
    """Put the base's patch, class and position embeddings back into a fused model (Section III, first module).

    The base station has them clean: they are theta_base's own. What the noise did to them is undone; what fine-tuning
    had changed in them, if anything, is lost.

    Parameters
    ----------
    kinds : sequence of {"position", "patch", "class"}
        Which of them.

    Raises
    ------
    InputError
        if `fused` was not made from `base`, or for an unknown kind.
    """
    fused.layout.require_equal(base.layout, "the fused weights")
    if fused.origin != base.origin:
        raise InputError(
            f"the fused weights stand on base {fused.origin[:12]}…, expected {base.origin[:12]}…: "
            "reload from the base they were fused with"
        )
    if unknown := [kind for kind in kinds if kind not in EMBEDDING_KINDS]:
        raise InputError(f"unknown embeddings {unknown[0]!r}: expected some of {', '.join(EMBEDDING_KINDS)}")
    values = fused.values.clone()
    prefixes = tuple(_ENTRY[kind] for kind in kinds)
    clean = base.state_dict()
    for name, view in fused.layout.views(values).items():
        if name.startswith(prefixes):
            view.copy_(clean[name])
    return replace(fused, values=values)


@dataclass(frozen=True, eq=False)
class Station:
    """What the base station holds when the task vectors have arrived.

    Attributes
    ----------
    backbone : Backbone
    received : dict of task name to TaskVector
        tau^_q of the tasks that it fuses.
    lam : float
        lambda_N, as chosen without noise.
    heads : dict of task name to Head
    memory : Memory or None
        A few training images of the fused tasks.
    error_cov : (user, user) array or None
        Covariance of the users' errors in one parameter, as far as it is known from the link.
    recipe : Recipe
        Of the realignment; what it freezes is up to each protection.
    seed : int
        From which the order of the images in the realignment follows.
    device, autocast
        As in `finetune`.
    """

    backbone: Backbone
    received: Mapping[str, TaskVector]
    lam: float
    heads: Mapping[str, Head]
    memory: Memory | None = None
    error_cov: Real | None = None
    recipe: Recipe = REALIGNMENT
    seed: int = 0
    device: str = "cpu"
    autocast: str | None = None


@dataclass(frozen=True, eq=False)
class Protected:
    """A protected model and its budget.

    Attributes
    ----------
    weights : Weights
    lam : float
        The coefficient that was used; the mean of them, where each user has one of its own.
    samples, bytes : int
        Images of the memory that were looked at, and what it takes to store them.
    steps : int
        Of the realignment.
    seconds : float
        Wall time of the protection, with the fusions that it takes.
    """

    weights: Weights
    lam: float
    samples: int = 0
    bytes: int = 0
    steps: int = 0
    seconds: float = 0.0


def _fused(station: Station, lam: float | Sequence[float] | None = None) -> Weights:
    taus = list(station.received.values())
    return fuse(station.backbone.weights, taus, station.lam if lam is None else lam)


def _memory(station: Station) -> Memory:
    if station.memory is None:
        raise InputError("this protection needs a memory of training images: draw one, see draw_memory")
    return station.memory.of(station.received)


def _realigned(station: Station, start: Weights, freeze: tuple[str, ...]) -> Weights:
    recipe = replace(station.recipe, freeze=freeze)
    generator = torch.Generator().manual_seed(station.seed)
    return realign(
        station.backbone, start, _memory(station), station.heads, recipe, generator=generator,
        device=station.device, autocast=station.autocast,
    )  # fmt: skip


def _nothing(station: Station) -> Protected:
    return Protected(_fused(station), station.lam)


def _base(station: Station) -> Protected:
    return Protected(station.backbone.weights, 0.0)


def _freeze(station: Station, kinds: Sequence[str] = EMBEDDING_KINDS) -> Protected:
    return Protected(reload_embeddings(_fused(station), station.backbone.weights, kinds), station.lam)


def _realign(station: Station) -> Protected:
    return Protected(_realigned(station, _fused(station), ()), station.lam)


def _reload_train_all(station: Station) -> Protected:
    return Protected(_realigned(station, _freeze(station).weights, ()), station.lam)


def _rmtllmf(station: Station, kinds: Sequence[str] = EMBEDDING_KINDS) -> Protected:
    return Protected(_realigned(station, _freeze(station, kinds).weights, ("embeddings",)), station.lam)


def _control(station: Station) -> Protected:
    return Protected(_realigned(station, station.backbone.weights, ("embeddings",)), 0.0)


def search_lambda(station: Station, parts: Sequence[float] = LAMBDA_PARTS) -> float:
    """The lambda whose model, embeddings reloaded, has the smallest cross-entropy on the memory.

    Parameters
    ----------
    parts : numbers
        Tried, times `station.lam`. 0 is the base itself.
    """
    memory, base = _memory(station), station.backbone.weights

    def score(lam: float) -> float:
        model = reload_embeddings(_fused(station, lam), base)
        return -min(memory_loss(station.backbone, model, memory, station.heads, device=station.device), 1e9)

    return choose_lambda(score, [part * station.lam for part in parts])[0]


def _searched_lambda(station: Station) -> Protected:
    lam = search_lambda(station)
    return Protected(reload_embeddings(_fused(station, lam), station.backbone.weights), lam)


def wiener_weights(received: Sequence[TaskVector], error_cov: Real) -> Real:
    """Coefficients c_q for which `sum c_q tau^_q` comes closest to `sum tau_q` in mean square; they need no data.

    With `T` the Gram matrix of the sent vectors per parameter and R the errors' covariance, `c = (T + R)^-1 T 1`. The
    sent vectors are not known, but what arrives has the Gram matrix T + R, to within what chance allows over very many
    parameters: `c = 1 - Gram^-1 R 1`. For equal users with independent errors, `c = 1 - mu / (1 + mu)` at scale "task".
    Embeddings are left out: they are reloaded.

    Parameters
    ----------
    error_cov : (user, user) float
        Covariance of the errors in one parameter, see `Scenario.error_cov`.

    Returns
    -------
    (user,) float64

    Raises
    ------
    InputError
        No vector, or a covariance of another shape.
    """
    users, R = len(received), np.asarray(error_cov, dtype=np.float64)
    if R.shape != (users, users):
        raise InputError(f"error_cov has shape {R.shape}: expected (user, user) = {(users, users)}")
    if not R.any():
        return np.ones(users)
    parts = [tau.without("embeddings") for tau in received]
    norms = np.array([part.norm for part in parts])
    numbers = sum(
        size
        for group, size in zip(received[0].layout.groups, received[0].layout.sizes, strict=True)
        if group != "embeddings"
    )
    gram = cosine_matrix(parts) * np.outer(norms, norms) / numbers
    return 1 - np.linalg.lstsq(gram, R.sum(axis=1))[0]


def _wiener(station: Station) -> Protected:
    if station.error_cov is None:
        raise InputError("the Wiener weights need the covariance of the errors: give the station's error_cov")
    coefficients = station.lam * wiener_weights(list(station.received.values()), station.error_cov)
    model = reload_embeddings(_fused(station, coefficients.tolist()), station.backbone.weights)
    return Protected(model, float(coefficients.mean()))


def _then_realigned(first: Callable[[Station], Protected], station: Station) -> Protected:
    start = first(station)
    return replace(start, weights=_realigned(station, start.weights, ("embeddings",)))


@dataclass(frozen=True)
class Protection:
    """One entry of `PROTECTIONS`.

    Attributes
    ----------
    apply : function of a Station
    title : str
        For figures.
    receives : bool
        Whether it looks at what was received at all; controls do not.
    remembers, trains : bool
        Whether it uses the memory, and whether it realigns.
    """

    apply: Callable[[Station], Protected]
    title: str
    receives: bool = True
    remembers: bool = False
    trains: bool = False


def _few_shot(apply: Callable[[Station], Protected], title: str, receives: bool = True) -> Protection:
    return Protection(apply, title, receives, remembers=True, trains=True)


PROTECTIONS: Mapping[str, Protection] = {
    "unprotected": Protection(_nothing, "unprotected"),
    "freeze": Protection(_freeze, "embeddings reloaded"),
    **{
        f"freeze-{kind}": Protection(partial(_freeze, kinds=(kind,)), f"{kind} embeddings reloaded")
        for kind in EMBEDDING_KINDS
    },
    "realign": _few_shot(_realign, "realigned"),
    "reload-train-all": _few_shot(_reload_train_all, "reloaded, all trained"),
    "rmtllmf": _few_shot(_rmtllmf, "R-MTLLMF"),
    **{
        f"rmtllmf-{kind}": _few_shot(partial(_rmtllmf, kinds=(kind,)), f"R-MTLLMF, {kind} embeddings only")
        for kind in EMBEDDING_KINDS
    },
    "noise-aware-lambda": Protection(_searched_lambda, "noise-aware lambda", remembers=True),
    "noise-aware": _few_shot(partial(_then_realigned, _searched_lambda), "noise-aware lambda, realigned"),
    "wiener-lambda": Protection(_wiener, "Wiener weights"),
    "wiener": _few_shot(partial(_then_realigned, _wiener), "Wiener weights, realigned"),
    "base": Protection(_base, "base, zero-shot", receives=False),
    "control": _few_shot(_control, "base, realigned", receives=False),
}


def protection_named(name: str) -> Protection:
    """The entry of `PROTECTIONS`; an InputError with all names for an unknown one."""
    return PROTECTIONS[one_of(name, PROTECTIONS, "protection")]


def protect(name: str, station: Station) -> Protected:
    """Apply a protection and report what it cost.

    Parameters
    ----------
    name : str
        One of `PROTECTIONS`.

    Raises
    ------
    InputError
        An unknown name, or something that the station lacks: a memory, the covariance of the errors.
    """
    protection = protection_named(name)
    started = time.perf_counter()
    result = protection.apply(station)
    seconds = time.perf_counter() - started
    used = _memory(station) if protection.remembers else None
    return replace(
        result,
        samples=used.samples if used else 0,
        bytes=used.bytes if used else 0,
        steps=station.recipe.steps if protection.trains else 0,
        seconds=seconds,
    )
