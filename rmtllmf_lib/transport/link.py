"""Task vectors sent over the uplink of Section II-A symbol by symbol, `y = H P^(1/2) s + z`, Eq. (2).

Every estimate is linear in y, so the antennas need not be simulated: with filters F, `F y = (F G) s + F z`, and only
these two products, of the size of the number of users, are computed per symbol. z = L n with `L L^H = C`, and n is
drawn symbol by symbol, antenna by antenna: the noise at the antennas depends on the generator's state alone, not on the
receiver, scheme or block size. `wireless.simulate` computes the same estimates antenna by antenna.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rmtllmf_lib.arrays import Complex, Real, fitted, instance_of, one_of, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector, require_alike
from rmtllmf_lib.progress import tqdm
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.threads import ordered
from rmtllmf_lib.transport.digital import RawFloat
from rmtllmf_lib.transport.scheme import Scheme
from rmtllmf_lib.transport.schemes import Analog, scheme_named
from rmtllmf_lib.transport.statistics import ErrorStatistics, Moments
from rmtllmf_lib.wireless.channel import Uplink, require_uplink
from rmtllmf_lib.wireless.receiver import (
    Order,
    Receiver,
    error_cov,
    lmmse_filter,
    lmmse_mse,
    require_noise_cov,
    sic_filters,
    sic_mse,
    sic_order,
)
from rmtllmf_lib.wireless.simulate import Cancellation, covariance_root

HEAVY = 1.0  # excess kurtosis of numbers to which predictions for Gaussian ones do not apply
_ALIGNED = 16  # torch draws normal numbers by 16: blocks of whole multiples continue one sequence


@dataclass(frozen=True, eq=False)
class Link:
    """An uplink with its noise and its receiver.

    Attributes
    ----------
    uplink : Uplink
        One drop, or a batch of drops: vectors are then split evenly over the drops, in order, each of which is a
        coherence block with its own channel.
    noise_cov : (..., rx, rx) complex, W
        The true noise covariance, thermal or chosen by an attack; broadcast over the batch. It may be singular or zero,
        see `wireless.receiver`.
    design_cov : (..., rx, rx) complex, W, optional
        The covariance that the receiver assumes, such as `uplink.thermal_cov`; None is the matched receiver.
    order : {"weakest-first", "strongest-first"}
        Decoding order of "sic", see `receiver.sic_order`.
    receiver : {"sic", "lmmse"}
        Successive cancellation, or one joint filter.
    cancellation : {"genie", "hard", "soft"}
        What "sic" subtracts once a user is detected: the symbols that were sent (Eq. (5)); re-modulated decisions; or
        posterior means of the symbols. "genie" is the default because the paper assumes it. No receiver of analog
        symbols can do it, and one of coded symbols only where it decodes without errors: for what a receiver can do,
        take "soft" with analog schemes and "hard" with the others. The filters are those of perfect cancellation
        throughout, and with a finite alphabet the receiver assumes its cancellation to be perfect. Analog symbols have
        no decisions, and their posterior means are the LMMSE estimates, with which "sic" is the joint LMMSE receiver.

    Raises
    ------
    InputError
        for an invalid covariance or one of another shape, or an unknown choice.
    """

    uplink: Uplink
    noise_cov: Complex
    design_cov: Complex | None = None
    order: Order = "weakest-first"
    receiver: Receiver = "sic"
    cancellation: Cancellation = "genie"

    __repr__ = short_repr

    def __post_init__(self) -> None:
        require_uplink(self.uplink)
        one_of(self.order, Order, "order")
        one_of(self.receiver, Receiver, "receiver")
        one_of(self.cancellation, Cancellation, "cancellation")
        object.__setattr__(self, "noise_cov", self._covariance(self.noise_cov, "noise_cov"))
        if self.design_cov is not None:
            object.__setattr__(self, "design_cov", self._covariance(self.design_cov, "design_cov"))

    def _covariance(self, cov: ArrayLike, name: str) -> Complex:
        C = require_noise_cov(cov, self.uplink, name)
        shape = (*self.uplink.batch_shape, *C.shape[-2:])
        found = np.array(fitted(C, shape, name, "(..., rx, rx)"), order="C")
        found.flags.writeable = False
        return found

    @property
    def effective_design_cov(self) -> Complex:
        """The covariance that the receiver assumes: `design_cov`, or `noise_cov` if matched."""
        return self.noise_cov if self.design_cov is None else self.design_cov

    def symbol_mse(self, joint: bool | None = None) -> Real:
        """Predicted MSE of the symbol estimates, assuming perfect cancellation: (..., user).

        Parameters
        ----------
        joint : bool, optional
            True for the joint LMMSE receiver; default: whether `receiver` is "lmmse".
        """
        joint = self.receiver == "lmmse" if joint is None else joint
        cov = error_cov(self.uplink, self.noise_cov, self.design_cov, self.order, receiver="lmmse" if joint else "sic")
        return np.einsum("...ii->...i", cov).real.copy()


@dataclass(frozen=True, eq=False)
class Received:
    """Result of `send`.

    Attributes
    ----------
    taus : list of TaskVector
        One per user.
    statistics : ErrorStatistics
        Its table has additional columns. `predicted`: the variance for symbols that are uncorrelated across users and
        perfect cancellation; exact for analog symbols, otherwise `Scheme.distortion`, which assumes Gaussian numbers,
        and NaN where there is none or the receiver is mismatched. Numbers with heavier tails are clipped more often and
        can have a hundred times that variance: `send` warns where `sent_kurtosis` is above 1. `symbol_mse`,
        `symbol_mse_predicted`: MSE of the receiver's estimates before detection. `lost`: how many numbers arrived as
        NaN or infinity, or overflowed when multiplied by a_q.
    """

    taus: list[TaskVector]
    statistics: ErrorStatistics

    __repr__ = short_repr

    def _repr_html_(self) -> str:
        """The statistics of the errors, where a notebook shows what was received."""
        return self.statistics._repr_html_()


@dataclass(frozen=True, eq=False)
class _Drop:
    """One coherence block, for the numbers start…stop of each vector; rows and columns in the order of the users.

    Attributes
    ----------
    order : list of int
        Users in the order of detection.
    gains, heard : (user, user) complex64 tensors
        `F G`, and the same without the users cancelled earlier.
    noise : (user, rx) complex64 tensor
        `F L`, for n of power 1.
    mse : list of float
        The MSEs that the receiver assumes.
    """

    start: int
    stop: int
    order: list[int]
    gains: Tensor
    heard: Tensor
    noise: Tensor
    mse: list[float]

    __repr__ = short_repr


_Job: TypeAlias = tuple[_Drop, slice, Tensor]  # slice of each vector, and n (rx, symbols) of power 2


def send(
    taus: Sequence[TaskVector],
    link: Link,
    scheme: Scheme | str = "analog-mmse",
    *,
    generator: torch.Generator,
    block: int = 2**16,
    out: Sequence[Tensor] | None = None,
    progress: bool | None = None,
) -> Received:
    """Send one task vector per user over the link, all simultaneously.

    Numbers are divided by `a_q = rms(tau_q)`, mapped to symbols by the scheme, and multiplied by a_q on reception; the
    receiver is assumed to know a_q. A user with zero received power is estimated as zero.

    The noise does not depend on the number of threads or on the block size, and neither do the results, except for the
    scheme's own rounding. Only schemes that send bits restart their scrambling in each block, so that another block
    size gives another realisation of their errors. Memory beyond vectors and results does not grow with their length:
    per thread of torch, about `block * (100 * users + 16 * rx)` bytes plus what the scheme needs for one block of one
    user.

    Parameters
    ----------
    taus : sequence of TaskVector
        One per user of the uplink, all of one layout and base.
    link : Link
    scheme : Scheme or str
        Mapping of numbers to symbols; a name of `SCHEMES`.
    generator : torch.Generator
        On the CPU; source of the noise.
    block : int
        Symbols of each user that are processed at once, rounded up to 16 of the scheme's blocks.
    out : sequence of (n,) float32 tensors, optional
        Where to write the results, one per user. They may share the memory of `taus`, which is then overwritten: the
        objects in `taus`, whose hash and norm are cached, must not be used afterwards.
    progress : bool, optional
        Whether to show a progress bar; default: on a terminal.

    Raises
    ------
    InputError
        if there is not one vector per user, layouts or bases differ, the scheme is unknown, or "hard" cancellation
        meets a scheme without decisions.
    """
    require_alike(taus)
    instance_of(link, Link, "link")
    users, n = link.uplink.num_users, taus[0].layout.size
    if len(taus) != users:
        raise InputError(f"got {len(taus)} task vectors for an uplink of {users} users: expected one per user")
    if instance_of(generator, torch.Generator, "generator").device.type != "cpu":
        raise InputError(f"generator is on {generator.device}: expected one on the CPU")
    scheme = scheme_named(scheme)
    if isinstance(scheme, RawFloat) and scheme.non_finite == "keep":
        raise InputError("non_finite is 'keep', and a task vector cannot hold NaN or infinity: expected 'zero'")
    joint, cancelled = _cancels(scheme, link)
    block = whole_number(block, "block")
    instance_of(progress, (bool, np.bool_, type(None)), "progress")
    step = scheme.reals_per_block * _rounded_up(max(1, block // scheme.symbols_per_block))
    targets = _targets(taus, out)
    scales = [tau.rms for tau in taus]
    drops = _drops(link, joint, n, scheme.reals_per_block)
    moments, squares, lost, sent = Moments(users), np.zeros(users), np.zeros(users, dtype=int), 0

    def pass_on(job: _Job) -> tuple[Moments, np.ndarray, np.ndarray, int, int]:
        drop, where, draws = job
        x = torch.stack([tau.values[where] / (a or 1.0) for tau, a in zip(taus, scales, strict=True)])
        symbols = torch.stack([scheme.modulate(row, user) for user, row in enumerate(x)])
        arrived, estimates, missing = _receive(symbols, x.shape[1], draws, drop, scheme, cancelled)
        missing = missing + _without_overflow(arrived, scales)
        for target, numbers, a in zip(targets, arrived, scales, strict=True):
            torch.mul(numbers, a, out=target[where])
        part = Moments(users)
        part.add(x, arrived)
        errors = torch.view_as_real(symbols - estimates).square().sum((1, 2), dtype=torch.float64).numpy()
        return part, errors, missing, symbols.shape[1], x.shape[1]

    show = sys.stderr.isatty() if progress is None else progress
    with tqdm(total=n, desc="sending", unit="number", unit_scale=True, disable=not show, leave=False) as bar:
        for part, errors, missing, symbols, numbers in ordered(pass_on, _jobs(drops, scheme, step, generator)):
            moments.merge(part)
            squares, lost, sent = squares + errors, lost + missing, sent + symbols
            bar.update(numbers)
    statistics = moments.statistics(scales)
    shares = np.array([drop.stop - drop.start for drop in drops]) / n
    mse = link.symbol_mse(joint).reshape(len(drops), users)
    statistics.table["predicted"] = shares @ np.array(
        [_predicted(*given, scheme, link) for given in zip(drops, mse, strict=True)]
    )
    _warn_of_heavy_tails(statistics.table, scheme)
    statistics.table["symbol_mse"] = squares / sent
    statistics.table["symbol_mse_predicted"] = shares @ mse
    statistics.table["lost"] = lost
    return Received([replace(tau, values=values) for tau, values in zip(taus, targets, strict=True)], statistics)


def _jobs(drops: Sequence[_Drop], scheme: Scheme, step: int, generator: torch.Generator) -> Iterator[_Job]:
    """Blocks with the draws for their noise, which are made here in order."""
    for drop in drops:
        for start in range(drop.start, drop.stop, step):
            where = slice(start, min(start + step, drop.stop))
            length = -(-(where.stop - start) // scheme.reals_per_block) * scheme.symbols_per_block
            draws = torch.randn(_rounded_up(length), drop.noise.shape[1], 2, generator=generator)
            yield drop, where, torch.view_as_complex(draws[:length]).T


def _receive(
    symbols: Tensor, n: int, draws: Tensor, drop: _Drop, scheme: Scheme, cancelled: str | None
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Received numbers (user, n) of a block, estimates of its symbols, and how many numbers each user lost."""
    users = len(symbols)
    estimates = drop.heard @ symbols
    estimates.addmm_(drop.noise, draws)
    arrived, lost = torch.zeros(users, n), np.zeros(users, dtype=int)
    for position, user in enumerate(drop.order):
        rest = symbols[user]
        if drop.mse[user] < 1:
            detected = scheme.detect(estimates[user], drop.mse[user], n, user)
            arrived[user], lost[user] = detected.values, detected.lost
            if cancelled is not None:
                rest = rest - (detected.hard if cancelled == "hard" else detected.soft)
        if cancelled is not None:
            for later in drop.order[position + 1 :]:
                estimates[later].add_(rest, alpha=complex(drop.gains[later, user]))
    return arrived, estimates, lost


def _without_overflow(arrived: Tensor, scales: Sequence[float]) -> np.ndarray:
    """Zero the numbers (user, n) that would overflow when multiplied by a_q, and count them per user."""
    lost = np.zeros(len(arrived), dtype=int)
    for user, (numbers, a) in enumerate(zip(arrived, scales, strict=True)):
        if a > 1:
            beyond = numbers.isfinite() & ~(numbers * a).isfinite()
            lost[user] = int(beyond.sum())
            numbers[beyond] = 0
    return lost


def _cancels(scheme: Scheme, link: Link) -> tuple[bool, str | None]:
    """Whether the receiver is equivalent to joint LMMSE, and how it cancels where that may be wrong, else None."""
    # a first block, before several threads use the scheme, builds what the scheme caches
    probe = scheme.detect(scheme.modulate(torch.zeros(scheme.reals_per_block)), 0.5, scheme.reals_per_block)
    if link.receiver == "lmmse":
        return True, None
    if link.cancellation == "genie":
        return False, None
    if link.cancellation == "hard":
        _ = probe.hard  # raises the scheme's own error before anything is sent
    return probe.decide is None, link.cancellation


def _drops(link: Link, joint: bool, n: int, multiple: int) -> list[_Drop]:
    """The coherence blocks, whose boundaries are multiples of the scheme's blocks."""
    uplink, design, users = link.uplink, link.effective_design_cov, link.uplink.num_users
    if link.receiver == "lmmse":
        F, order = lmmse_filter(uplink, design), np.broadcast_to(np.arange(users), uplink.power.shape)
        heard: np.ndarray = np.ones((users, users), dtype=bool)
    else:
        F, order = sic_filters(uplink, design, link.order), sic_order(uplink, link.order)
        place = np.argsort(order, axis=-1)
        heard = place[..., None, :] >= place[..., :, None]
    gains = F @ uplink.G
    noise = F @ covariance_root(link.noise_cov) * np.sqrt(0.5)  # real and imaginary part of n have variance 1 each
    mse = lmmse_mse(uplink, design) if joint else sic_mse(uplink, design, link.order)
    orders, assumed = order.reshape(-1, users).tolist(), mse.reshape(-1, users).tolist()
    all_gains, all_heard, all_noise = (
        torch.from_numpy(x.reshape(-1, *x.shape[-2:]).astype(np.complex64)) for x in (gains, gains * heard, noise)
    )
    blocks, count = -(-n // multiple), len(orders)
    borders = [min(n, blocks * i // count * multiple) for i in range(count + 1)]
    return [
        _Drop(borders[i], borders[i + 1], orders[i], all_gains[i], all_heard[i], all_noise[i], assumed[i])
        for i in range(count)
    ]


def _predicted(drop: _Drop, mse: Real, scheme: Scheme, link: Link) -> list[float]:
    """Error variance of each user's normalised numbers in a drop, for the true MSE of the symbols."""
    return [_distortion(scheme, true, assumed, link) for true, assumed in zip(mse, drop.mse, strict=True)]


def _distortion(scheme: Scheme, mse: float, assumed: float, link: Link) -> float:
    if assumed >= 1:
        return 1.0  # nothing arrives, and the receiver yields zeros
    if isinstance(scheme, Analog):
        # the estimate is (1 - assumed) s plus an error uncorrelated with s, even in a mismatched receiver
        return mse if scheme.estimate == "mmse" else (mse - assumed**2) / (1 - assumed) ** 2
    found = scheme.distortion(mse) if link.design_cov is None else None
    return float("nan") if found is None else found


def _warn_of_heavy_tails(table: pd.DataFrame, scheme: Scheme) -> None:
    heavy = table[table["predicted"].notna() & (table["sent_kurtosis"] > HEAVY)]
    if len(heavy) and not isinstance(scheme, Analog):
        warnings.warn(
            f"the numbers of users {heavy['user'].tolist()} have heavy tails, excess kurtosis up to "
            f"{heavy['sent_kurtosis'].max():.3g}: their predicted variance, of Gaussian numbers, is too low",
            stacklevel=3,
        )


def _targets(taus: Sequence[TaskVector], out: Sequence[Tensor] | None) -> list[Tensor]:
    if out is None:
        return [tau.layout.empty() for tau in taus]
    if len(instance_of(out, (list, tuple), "out")) != len(taus):
        raise InputError(f"out has {len(out)} tensors for {len(taus)} task vectors: expected one per vector")
    for target in out:
        if target.shape != taus[0].values.shape or target.dtype != torch.float32 or target.device.type != "cpu":
            raise InputError(
                f"out has a {target.dtype} tensor of shape {tuple(target.shape)} on {target.device}: "
                f"expected float32, {tuple(taus[0].values.shape)}, cpu"
            )
        if not target.is_contiguous() or target.requires_grad:
            raise InputError(
                "out has a strided tensor or one with a gradient: expected contiguous buffers without gradients"
            )
    if len({target.data_ptr() for target in out}) < len(out):
        raise InputError("out has the same tensor for two users: expected a separate one per user")
    return list(out)


def _rounded_up(count: int) -> int:
    return -(-count // _ALIGNED) * _ALIGNED
