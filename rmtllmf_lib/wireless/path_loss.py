"""Path loss in dB at a distance in m: free space, log-distance, and the urban cells of 3GPP TR 38.901.

References
----------
.. [1] H. T. Friis, "A note on a simple transmission formula", Proc. IRE 34(5), 1946.
.. [2] A. Goldsmith, "Wireless Communications", Cambridge University Press, 2005, section 2.6.
.. [3] 3GPP TR 38.901, "Study on channel model for frequencies from 0.5 to 100 GHz", version 16.1.0, tables 7.4.1-1
   (path loss, shadowing) and 7.4.2-1 (probability of a line of sight).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import Real, numpy_generator, one_of, real_array, real_number
from rmtllmf_lib.errors import InputError

SPEED_OF_LIGHT = 299_792_458.0  # m/s

Cell = Literal["UMa", "UMi"]
Model = Literal["free-space", "log-distance", "UMa-LoS", "UMa-NLoS", "UMa", "UMi-LoS", "UMi-NLoS", "UMi"]

BASE_HEIGHT_M = {"UMa": 25.0, "UMi": 10.0}  # antenna of the base station, fixed by the formulas
SHADOWING_DB = {"UMa-LoS": 4.0, "UMa-NLoS": 6.0, "UMi-LoS": 4.0, "UMi-NLoS": 7.82}  # standard deviations


def free_space_db(distance_m: ArrayLike, carrier_hz: float) -> Real:
    """Free-space loss `20 log10(4 pi d f / c)` between isotropic antennas [1], dB.

    Valid in the far field; within a wavelength over 4 pi the formula would give a gain.
    """
    distance = real_array(distance_m, "distance_m", positive=True)
    return 20 * np.log10(4 * np.pi * distance * real_number(carrier_hz, "carrier_hz", positive=True) / SPEED_OF_LIGHT)


def log_distance_db(distance_m: ArrayLike, carrier_hz: float, exponent: float, reference_m: float = 1.0) -> Real:
    """Free-space loss at `reference_m`, then `10 exponent log10(d / reference_m)` [2], dB.

    Parameters
    ----------
    distance_m : (...) float, m
        Meant for distances beyond the reference; shorter ones are extrapolated.
    carrier_hz : float, Hz
    exponent : float
        Above zero; 2 is free space.
    reference_m : float, m
    """
    distance = real_array(distance_m, "distance_m", positive=True)
    reference = real_number(reference_m, "reference_m", positive=True)
    slope = 10 * real_number(exponent, "exponent", positive=True)
    return free_space_db(reference, carrier_hz) + slope * np.log10(distance / reference)


def cell_db(
    distance_m: ArrayLike, carrier_hz: float, cell: Cell, *, line_of_sight: ArrayLike, user_height_m: float = 1.5
) -> Real:
    """Path loss of an urban macro (UMa) or micro (UMi street canyon) cell, [3] table 7.4.1-1, dB.

    Parameters
    ----------
    distance_m : (...) float, m
        Ground distance, 10…5000 m.
    carrier_hz : float, Hz
        .5…100 GHz.
    cell : {"UMa", "UMi"}
        The base station is 25 m (UMa) or 10 m (UMi) high.
    line_of_sight : (...) bool
        Whether the line of sight is free.
    user_height_m : float, m
        1.5…13 m. The table goes up to 22.5 m, but from 13 m on UMa's breakpoint is random.

    Returns
    -------
    (...) float, dB, without shadowing, whose standard deviations are `SHADOWING_DB`.
    """
    base = BASE_HEIGHT_M[one_of(cell, Cell, "cell")]
    ground = real_array(distance_m, f"distance_m of {cell}", minimum=10, maximum=5000)
    ghz = real_number(carrier_hz, f"carrier_hz of {cell}", minimum=0.5e9, maximum=100e9) / 1e9
    user = real_number(user_height_m, f"user_height_m of {cell}", minimum=1.5, maximum=13)
    rise = base - user
    log_slant, log_ghz = np.log10(np.hypot(ground, rise)), np.log10(ghz)
    # effective heights exclude 1 m of clutter; the table rounds the speed of light to 3e8 m/s
    breakpoint_m = 4 * (base - 1) * (user - 1) * ghz * 1e9 / 3e8
    if cell == "UMa":
        near, far = 28.0 + 22 * log_slant, 28.0 + 40 * log_slant - 9 * np.log10(breakpoint_m**2 + rise**2)
        blocked = 13.54 + 39.08 * log_slant + 20 * log_ghz - 0.6 * (user - 1.5)
    else:
        near, far = 32.4 + 21 * log_slant, 32.4 + 40 * log_slant - 9.5 * np.log10(breakpoint_m**2 + rise**2)
        blocked = 22.4 + 35.3 * log_slant + 21.3 * log_ghz - 0.3 * (user - 1.5)
    sight = np.asarray(line_of_sight)
    if sight.dtype != bool:
        raise InputError(f"line_of_sight has dtype {sight.dtype}: expected True or False for each distance")
    clear = np.where(ground <= breakpoint_m, near, far) + 20 * log_ghz
    return np.where(sight, clear, np.maximum(clear, blocked))


def line_of_sight_probability(distance_m: ArrayLike, cell: Cell) -> Real:
    """Probability of a line of sight, [3] table 7.4.2-1, for users at most 13 m high.

    Parameters
    ----------
    distance_m : (...) float, m
        Ground distance.
    cell : {"UMa", "UMi"}
    """
    one_of(cell, Cell, "cell")
    distance = real_array(distance_m, "distance_m", positive=True)
    near = 18 / np.maximum(distance, 18)
    return near + np.exp(-distance / {"UMa": 63, "UMi": 36}[cell]) * (1 - near)


@dataclass(frozen=True)
class PathLoss:
    """A path loss model with its constants; free space at 2.4 GHz by default.

    Attributes
    ----------
    model : str
        "free-space", "log-distance", "UMa-LoS", "UMa-NLoS", "UMi-LoS", "UMi-NLoS", or "UMa" and "UMi", where the
        line of sight of each user is drawn with `line_of_sight_probability`.
    carrier_hz : float
        Carrier frequency, Hz.
    exponent, reference_m : float
        For "log-distance" only; the reference is in m.
    shadowing_db : float, optional
        Standard deviation of log-normal shadowing, dB; None is the model's own: that of TR 38.901, 0 otherwise.
    user_height_m : float
        For the models of TR 38.901 only, m.
    """

    model: Model = "free-space"
    carrier_hz: float = 2.4e9
    exponent: float = 3.0
    reference_m: float = 1.0
    shadowing_db: float | None = None
    user_height_m: float = 1.5

    def __post_init__(self) -> None:
        one_of(self.model, Model, "path loss model")
        if self.shadowing_db is not None:
            real_number(self.shadowing_db, "shadowing_db", minimum=0)
        for name in ("carrier_hz", "exponent", "reference_m", "user_height_m"):  # also where the model does without
            real_number(getattr(self, name), name, positive=True)
        self._loss_db(np.array([100.0]), np.array([True]))  # the formulas check the constants

    def draw_db(self, distance_m: ArrayLike, rng: np.random.Generator) -> Real:
        """Path loss in dB, with line of sight and shadowing drawn independently for each user.

        Nothing is drawn where the model has neither.

        Parameters
        ----------
        distance_m : (...) float, m
            Ground distance; the models of TR 38.901 account for the difference in height.
        rng : numpy.random.Generator
        """
        distance = real_array(distance_m, "distance_m", positive=True)
        numpy_generator(rng)
        if self.model in get_args(Cell):
            clear = rng.random(distance.shape) < line_of_sight_probability(distance, cast(Cell, self.model))
        else:
            clear = np.full(distance.shape, self.model.endswith("-LoS"))
        loss = self._loss_db(distance, clear)
        spread = self._shadowing_db(clear)
        return loss + spread * rng.standard_normal(distance.shape) if spread.any() else loss

    def _loss_db(self, distance: Real, clear: np.ndarray) -> Real:
        if self.model == "free-space":
            return free_space_db(distance, self.carrier_hz)
        if self.model == "log-distance":
            return log_distance_db(distance, self.carrier_hz, self.exponent, self.reference_m)
        cell: Cell = "UMa" if self.model.startswith("UMa") else "UMi"
        return cell_db(distance, self.carrier_hz, cell, line_of_sight=clear, user_height_m=self.user_height_m)

    def _shadowing_db(self, clear: np.ndarray) -> Real:
        if self.shadowing_db is not None:
            return np.full(clear.shape, float(self.shadowing_db))
        if self.model in ("free-space", "log-distance"):
            return np.zeros(clear.shape)
        cell = self.model[:3]
        return np.where(clear, SHADOWING_DB[f"{cell}-LoS"], SHADOWING_DB[f"{cell}-NLoS"])
