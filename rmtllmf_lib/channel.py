"""The multi-user uplink of section II-A, `y = sum_q h_q sqrt(p_q) s_q + z`, Eq. (2), in batches of drops.

A drop is one placing of the users with one draw of their fading. Powers are in W, distances in m, frequencies in Hz.

References
----------
.. [1] A. Goldsmith, "Wireless Communications", Cambridge University Press, 2005, chapters 2 and 3.
.. [2] A. Paulraj, R. Nabar, D. Gore, "Introduction to Space-Time Wireless Communications", Cambridge University
   Press, 2003, chapter 3 (Rician fading and the Kronecker model of correlation).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rmtllmf_lib.arrays import Complex, Real, complex_array, fitted, real_array
from rmtllmf_lib.errors import InputError


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
        if 0 in H.shape[-2:]:
            raise InputError(f"H has shape {H.shape}: expected (..., rx, user) with at least one antenna and one user")
        power = real_array(self.power, "power", minimum=0)
        noise_floor = real_array(self.noise_floor, "noise_floor", minimum=0)
        batch, users = H.shape[:-2], H.shape[-1]
        if power.ndim and power.shape[-1] != users:
            raise InputError(f"power has shape {power.shape}: expected (..., user) = {(*batch, users)}, as H {H.shape}")
        object.__setattr__(self, "H", _frozen(H))
        object.__setattr__(self, "power", _frozen(fitted(power, (*batch, users), "power", "(..., user)")))
        object.__setattr__(self, "noise_floor", _frozen(fitted(noise_floor, batch, "noise_floor", "(...)")))

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
        return _frozen(self.power * gain)

    @property
    def thermal_cov(self) -> Complex:
        """Covariance of the thermal noise, `sigma_0^2 I`: (..., rx, rx) in W."""
        cov: Complex = self.noise_floor[..., None, None] * np.eye(self.num_rx_antennas, dtype=np.complex128)
        return cov

    def __getitem__(self, index: Any) -> Uplink:
        """The drops that `index` picks from the batch dimensions, as from an array of shape `batch_shape`."""
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
    array = np.ascontiguousarray(array) if array.ndim else array.copy()
    array.flags.writeable = False
    return array
