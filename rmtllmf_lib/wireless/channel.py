"""The multi-user uplink of section II-A, `y = sum_q h_q sqrt(p_q) s_q + z`, Eq. (2), in batches of drops.

A drop is one placing of the users with one draw of their fading. Powers are in W, distances in m, frequencies in Hz.

References
----------
.. [1] A. Goldsmith, "Wireless Communications", Cambridge University Press, 2005, chapters 2 and 3.
.. [2] A. Paulraj, R. Nabar, D. Gore, "Introduction to Space-Time Wireless Communications", Cambridge University
   Press, 2003, chapter 3 (Rician fading and the Kronecker model of correlation).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import Complex, Real, complex_array, fitted, real_array, real_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.path_loss import PathLoss

BOLTZMANN = 1.380649e-23  # J/K, exact in the SI
NOISE_TEMPERATURE = 290.0  # K, to which noise figures refer


@dataclass(frozen=True)
class LinkBudget:
    """What turns a distance into a mean received power and a noise floor.

    The defaults are a physical link budget under which the paper's setting (8 users with .1 mW each, 100…1000 m, 16
    antennas, Rayleigh fading) has the paper's ideal mean MSE of .013: free space at 2.4 GHz, 180 kHz, noise figure
    6.8 dB, so a noise floor of -114.6 dBm and a mean SNR of 4.6 dB per antenna at 1000 m. The paper gives none of them.

    Mean MSE, Eq. (5) in the paper's order, over 40,000 drops (20,000 for the alternatives; standard error < .5 %), one
    thing changed at a time; in brackets with the strongest user first:

    ======================  ===============  ======================  ===============
    as it is                .0130 (.0098)    uniform area            .0172 (.0139)
    noise figure 3 dB       .0055 (.0042)    100 replaced by 10 m    .0120 (.0088)
    noise figure 5 dB       .0087 (.0065)    8 antennas              .066 (.028)
    noise figure 9 dB       .0212 (.0161)    32 antennas             .0050 (.0044)
    carrier .9 GHz          .0019 (.0014)    Rician, K = 10 dB       .0233 (.0131)
    carrier 3.5 GHz         .0268 (.0205)    log-distance, 3         .67 (.66)
    UMa                     .73 (.73)        UMi                     .72 (.71)
    ======================  ===============  ======================  ===============

    Only the noise floor over the path gain matters. Means that round to .013 need a noise figure of 6.6…6.9 dB, or
    7.9…8.2 dB with the strongest user first; 1 dB is about a quarter of the MSE. .1 mW is too little for a cell of this
    size with obstacles.

    Attributes
    ----------
    power_w : float
        Transmit power of each user, W.
    path_loss : PathLoss
        Model of the path loss with its carrier frequency.
    bandwidth_hz : float
        Bandwidth over which noise is collected, Hz.
    noise_figure_db : float
        Noise figure of the receiver, dB.
    """

    power_w: float = 1e-4
    path_loss: PathLoss = PathLoss()
    bandwidth_hz: float = 180e3
    noise_figure_db: float = 6.8

    def __post_init__(self) -> None:
        object.__setattr__(self, "power_w", real_number(self.power_w, "power_w", minimum=0))
        thermal_noise_w(self.bandwidth_hz, self.noise_figure_db)

    @property
    def noise_floor_w(self) -> float:
        """Thermal noise power at each receive antenna, W."""
        return thermal_noise_w(self.bandwidth_hz, self.noise_figure_db)


def thermal_noise_w(bandwidth_hz: float, noise_figure_db: float = 0.0) -> float:
    """Thermal noise power `k T_0 B F` in W, with T_0 = 290 K: -174 dBm in 1 Hz.

    Parameters
    ----------
    bandwidth_hz : float, Hz
        Above zero.
    noise_figure_db : float, dB
        At least 0.
    """
    bandwidth = real_number(bandwidth_hz, "bandwidth_hz", positive=True)
    figure = real_number(noise_figure_db, "noise_figure_db", minimum=0)
    return BOLTZMANN * NOISE_TEMPERATURE * bandwidth * 10 ** (figure / 10)


@dataclass(frozen=True, eq=False)
class Uplink:
    """One drop of the uplink, Eq. (2), or a batch of drops.

    Single numbers and missing leading dimensions of `power` and `noise_floor` are broadcast over the batch.

    Attributes
    ----------
    H : (..., rx, user) complex
        Channel of each user to each receive antenna, path gain included; dimensionless (amplitude).
    power : (..., user) float, W
        Transmit power of each user, at least 0; a user of power 0 is silent.
    noise_floor : (...) float, W
        Thermal noise power sigma_0^2 at each receive antenna, at least 0.

    Raises
    ------
    InputError
        for a wrong shape, no user, no antenna, complex or negative power, NaN or infinity.
    """

    H: Complex
    power: Real
    noise_floor: Real

    def __post_init__(self) -> None:
        H = complex_array(self.H, "H")
        if H.ndim < 2:
            raise InputError(f"H has shape {H.shape}: expected (..., rx, user)")
        if 0 in H.shape:
            raise InputError(
                f"H has shape {H.shape}: expected (..., rx, user) with at least one drop, antenna and user"
            )
        power = real_array(self.power, "power", minimum=0)
        noise_floor = real_array(self.noise_floor, "noise_floor", minimum=0)
        batch, users = H.shape[:-2], H.shape[-1]
        if power.ndim and power.shape[-1] != users:
            raise InputError(f"power has shape {power.shape}: expected (..., user) = {(*batch, users)}, as H {H.shape}")
        object.__setattr__(self, "H", _frozen(np.array(H, order="C")))
        object.__setattr__(self, "power", _frozen(fitted(power, (*batch, users), "power", "(..., user)").copy()))
        object.__setattr__(self, "noise_floor", _frozen(fitted(noise_floor, batch, "noise_floor", "(...)").copy()))

    @property
    def num_rx_antennas(self) -> int:
        """N_R."""
        return int(self.H.shape[-2])

    @property
    def num_users(self) -> int:
        """Q."""
        return int(self.H.shape[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of drops, () for a single one."""
        return self.H.shape[:-2]

    @cached_property
    def G(self) -> Complex:  # noqa: N802 - the paper's letter
        """`H P^(1/2)`, columns `g_q = sqrt(p_q) h_q`: (..., rx, user) in W^(1/2)."""
        return _frozen(self.H * np.sqrt(self.power)[..., None, :])

    @cached_property
    def received_power(self) -> Real:
        """`p_q ||h_q||^2`, summed over the antennas: (..., user) in W."""
        gain = np.square(self.H.real).sum(axis=-2) + np.square(self.H.imag).sum(axis=-2)
        return _frozen(np.asarray(self.power * gain))

    @property
    def thermal_cov(self) -> Complex:
        """Covariance of the thermal noise, `sigma_0^2 I`: (..., rx, rx) in W."""
        return (self.noise_floor[..., None, None] * np.eye(self.num_rx_antennas)).astype(np.complex128)

    def __iter__(self) -> Iterator[Uplink]:
        """The drops along the first batch dimension."""
        if not self.batch_shape:
            raise InputError("this uplink is a single drop: there is no batch of drops to go through")
        return (self[drop] for drop in range(self.batch_shape[0]))

    def __getitem__(self, index: Any) -> Uplink:
        """The drops that `index` picks from the batch dimensions, as from an array of shape `batch_shape`."""
        if isinstance(index, slice) and self.batch_shape:
            return Uplink(self.H[index], self.power[index], self.noise_floor[index])
        try:
            chosen = np.arange(self.noise_floor.size).reshape(self.batch_shape)[index]
        except IndexError as error:
            raise InputError(f"the batch has shape {self.batch_shape}: {error}") from None
        flat = (
            self.H.reshape(-1, *self.H.shape[-2:]),
            self.power.reshape(-1, self.num_users),
            self.noise_floor.ravel(),
        )
        return Uplink(*(part[chosen] for part in flat))


def _frozen(array: Any) -> Any:
    array.flags.writeable = False
    return array


def draw_distances(
    shape: tuple[int, ...],
    rng: np.random.Generator,
    *,
    placement: Literal["distance", "area"] = "distance",
    nearest_m: float = 100.0,
    farthest_m: float = 1000.0,
) -> Real:
    """Distances of users from the receiver in m, in an array of `shape`.

    Parameters
    ----------
    placement : {"distance", "area"}
        "distance": the distance is uniform, as the paper says, so that users crowd near the receiver.
        "area": users are uniform over the ring between the two distances; the density grows with the distance.
    nearest_m, farthest_m : float, m
        0 < nearest_m <= farthest_m.
    """
    near = real_number(nearest_m, "nearest_m", positive=True)
    far = real_number(farthest_m, "farthest_m", minimum=near)
    if placement not in ("distance", "area"):
        raise InputError(f"placement is {placement!r}: expected 'distance' or 'area'")
    exponent = 1 if placement == "distance" else 2
    return rng.uniform(near**exponent, far**exponent, shape) ** (1 / exponent)


def draw_fading(
    shape: tuple[int, ...],
    rng: np.random.Generator,
    *,
    rician_k_db: float | None = None,
    rx_correlation: ArrayLike | None = None,
) -> Complex:
    """Small-scale fading of mean power 1 per antenna, (..., rx, user).

    Parameters
    ----------
    shape : tuple of int
        (..., rx, user).
    rician_k_db : float, dB, optional
        Power of the direct path over the power of the scattered ones; None is Rayleigh fading, without direct path.
        The direct path meets a linear array at half a wavelength's spacing from a uniform azimuth, with a uniform
        phase.
    rx_correlation : (rx, rx) complex, optional
        Correlation of the scattered paths between antennas, Hermitian positive semidefinite with unit diagonal, the
        same for every user [2]; None is the identity. See `exponential_correlation`.
    """
    if len(shape) < 2:
        raise InputError(f"shape is {shape}: expected (..., rx, user)")
    parts = rng.standard_normal((2, *shape))
    scattered = (parts[0] + 1j * parts[1]) * np.sqrt(0.5)
    if rx_correlation is not None:
        scattered = _root(rx_correlation, shape[-2]) @ scattered
    if rician_k_db is None:
        return scattered
    k = 10 ** (real_number(rician_k_db, "rician_k_db") / 10)
    users = (*shape[:-2], 1, shape[-1])
    azimuth, phase = rng.uniform(-np.pi, np.pi, users), rng.uniform(-np.pi, np.pi, users)
    direct = np.exp(1j * (np.pi * np.arange(shape[-2])[:, None] * np.sin(azimuth) + phase))
    return np.sqrt(k / (k + 1)) * direct + np.sqrt(1 / (k + 1)) * scattered


def exponential_correlation(num_rx_antennas: int, coefficient: complex) -> Complex:
    """Correlation matrix (rx, rx) with `coefficient^(j - i)` above the diagonal; its modulus is at most 1."""
    count = whole_number(num_rx_antennas, "num_rx_antennas")
    rho = complex_array(coefficient, "coefficient")
    if rho.ndim or abs(rho) > 1:
        raise InputError(f"coefficient is {coefficient!r}: expected one number of modulus at most 1")
    lag = np.arange(count) - np.arange(count)[:, None]
    powers = rho ** np.abs(lag)
    return np.where(lag >= 0, powers, powers.conj())


def _root(correlation: ArrayLike, num_rx_antennas: int) -> Complex:
    """Square root of a correlation matrix."""
    R = complex_array(correlation, "rx_correlation")
    if R.shape != (num_rx_antennas, num_rx_antennas):
        raise InputError(f"rx_correlation has shape {R.shape}: expected (rx, rx) = {(num_rx_antennas,) * 2}")
    if not np.allclose(R, R.conj().T, rtol=0, atol=1e-12) or not np.allclose(R.diagonal(), 1, rtol=0, atol=1e-12):
        raise InputError(
            "rx_correlation is not a correlation matrix: expected a Hermitian one with ones on its diagonal"
        )
    values, vectors = np.linalg.eigh(R)
    if values[0] < -1e-12 * num_rx_antennas:
        raise InputError(f"rx_correlation has the eigenvalue {values[0]:.3g}: expected a positive semidefinite matrix")
    return (vectors * np.sqrt(values.clip(0))) @ vectors.conj().T


def uplinks_at(
    distance_m: ArrayLike,
    rng: np.random.Generator,
    *,
    num_rx_antennas: int = 16,
    budget: LinkBudget | None = None,
    rician_k_db: float | None = None,
    rx_correlation: ArrayLike | None = None,
) -> Uplink:
    """Draw shadowing (where the path loss has one) and fading for users at known distances.

    Parameters
    ----------
    distance_m : (..., user) float, m
        Distance of each user on the ground; above zero.
    num_rx_antennas : int
        N_R.
    budget : LinkBudget, optional
        `LinkBudget()` by default.
    rician_k_db, rx_correlation
        See `draw_fading`.

    Returns
    -------
    Uplink with batch shape (...).
    """
    distance = real_array(distance_m, "distance_m", positive=True)
    antennas = whole_number(num_rx_antennas, "num_rx_antennas")
    if distance.ndim == 0 or distance.shape[-1] == 0:
        raise InputError(f"distance_m has shape {distance.shape}: expected (..., user) with at least one user")
    budget = budget or LinkBudget()
    amplitude = 10 ** (-budget.path_loss.draw_db(distance, rng) / 20)
    fading = draw_fading(
        (*distance.shape[:-1], antennas, distance.shape[-1]),
        rng,
        rician_k_db=rician_k_db,
        rx_correlation=rx_correlation,
    )
    power, floor = np.full(distance.shape[-1:], budget.power_w), np.asarray(budget.noise_floor_w)
    return Uplink(fading * amplitude[..., None, :], power, floor)


def draw_uplinks(
    n: int,
    rng: np.random.Generator,
    *,
    num_users: int = 8,
    num_rx_antennas: int = 16,
    placement: Literal["distance", "area"] = "distance",
    nearest_m: float = 100.0,
    farthest_m: float = 1000.0,
    budget: LinkBudget | None = None,
    rician_k_db: float | None = None,
    rx_correlation: ArrayLike | None = None,
) -> Uplink:
    """Draw `n` drops of the paper's setting: 8 users of .1 mW at 100…1000 m, 16 antennas, Rayleigh fading.

    Distances are drawn first, then shadowing, then fading: the same generator gives the same places for every
    `budget` without shadowing.

    Parameters
    ----------
    n : int
        Number of drops, at least 1.
    rng : numpy.random.Generator
    num_users, num_rx_antennas : int
        Q and N_R.
    placement, nearest_m, farthest_m
        See `draw_distances`.
    budget, rician_k_db, rx_correlation
        See `uplinks_at`.

    Returns
    -------
    Uplink with batch shape (n,).
    """
    shape = (whole_number(n, "n"), whole_number(num_users, "num_users"))
    return uplinks_at(
        draw_distances(shape, rng, placement=placement, nearest_m=nearest_m, farthest_m=farthest_m),
        rng,
        num_rx_antennas=num_rx_antennas,
        budget=budget,
        rician_k_db=rician_k_db,
        rx_correlation=rx_correlation,
    )


def snr_db(uplink: Uplink) -> Real:
    """Received power over noise at one antenna, the mean over the antennas: (..., user) in dB."""
    floor = uplink.noise_floor[..., None] * uplink.num_rx_antennas
    if not (floor > 0).all() or not (uplink.received_power > 0).all():
        raise InputError("a noise floor or a received power is 0: expected both above 0 W, for an SNR in dB")
    return np.asarray(10 * np.log10(uplink.received_power / floor))


def with_floor(uplink: Uplink, gain_db: float) -> Uplink:
    """The same users over a noise floor that is higher by `gain_db`."""
    return Uplink(uplink.H, uplink.power, uplink.noise_floor * 10 ** (real_number(gain_db, "gain_db") / 10))
