"""The camera model: light, colour response, sharpness, noise.

Each task has a camera of its own, which pre-training never saw: that is the domain shift fine-tuning has to learn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from rmtllmf_lib.tasks.embedded import brush
from rmtllmf_lib.tasks.embedded.draw import LUMA, Array, Canvas


@dataclass(frozen=True)
class Camera:
    """A fixed colour response, and the ranges from which the settings of each photograph are drawn.

    Attributes
    ----------
    hue : float
        Rotation of the colours around the grey axis, degrees.
    saturation : float
        1 keeps colours, 0 gives grey, negative values the complementary colours.
    gamma : float
        Exponent of the response.
    tint : (float, float, float)
        Gain per channel.
    blur : float
        Weight of a 3 × 3 binomial blur that is mixed in, 0…1; above 1 it is applied twice.
    gain, contrast : float pairs
        Ranges of the brightness factor and of the contrast around mid grey.
    noise : float pair
        Range of the standard deviation of pixel noise.
    jitter : float
        Standard deviation of a random 3 × 3 colour mixing per photograph.
    clutter : float
        Probability that a small random rectangle hides some of the scene.
    """

    hue: float = 0.0
    saturation: float = 1.0
    gamma: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur: float = 0.0
    gain: tuple[float, float] = (0.8, 1.15)
    contrast: tuple[float, float] = (0.8, 1.1)
    noise: tuple[float, float] = (0.0, 0.06)
    jitter: float = 0.0
    clutter: float = 0.0

    def at(self, severity: float) -> Camera:
        """The camera with wider ranges, as in worse light and weather; severity 0 leaves it as it is."""
        return replace(
            self,
            blur=self.blur * (1 + 0.3 * severity),
            gain=(self.gain[0] * (1 - 0.2 * severity), self.gain[1]),
            contrast=(self.contrast[0] * (1 - 0.25 * severity), self.contrast[1]),
            noise=(self.noise[0], self.noise[1] * (1 + severity)),
            jitter=self.jitter + 0.15 * severity,
            clutter=max(self.clutter, min(self.clutter + 0.25 * severity, 0.9)),
        )

    def matrix(self) -> Array:
        """The 3 × 3 colour response: hue rotation, saturation, tint."""
        a = np.deg2rad(self.hue)
        axis = np.full(3, 1.0 / np.sqrt(3.0))
        skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
        turn = np.eye(3) * np.cos(a) + np.sin(a) * skew + (1 - np.cos(a)) * np.outer(axis, axis)
        desaturate = self.saturation * np.eye(3) + (1.0 - self.saturation) * np.tile(LUMA, (3, 1))
        return (np.diag(self.tint) @ desaturate @ turn).astype(np.float32)

    def photograph(self, canvas: Canvas) -> np.ndarray:
        """Turn a canvas into photographs (n, 3, SIZE, SIZE) uint8."""
        if self.clutter:
            hide = canvas.coin(self.clutter)[:, None, None]
            patch = canvas.box(
                canvas.uniform(-1, 1), canvas.uniform(-1, 1), canvas.uniform(0.08, 0.3), canvas.uniform(0.08, 0.3)
            )
            canvas.paint(canvas.mask(patch) * hide, canvas.any_colour())
        rgb, n = canvas.rgb, canvas.n
        mixing = np.broadcast_to(self.matrix(), (n, 3, 3)).copy()
        if self.jitter:
            mixing += self.jitter * canvas.rng.standard_normal((n, 3, 3), dtype=np.float32)
        contrast, gain = canvas.uniform(*self.contrast), canvas.uniform(*self.gain)
        sigma = canvas.level(*self.noise)
        noise = canvas.rng.standard_normal(rgb.shape, dtype=np.float32)
        noise *= sigma
        out = np.empty((n, 3, *rgb.shape[2:]), np.uint8)
        weight, gamma = np.float32(min(self.blur, 1.0)), np.float32(self.gamma)
        brush.develop(rgb, mixing, contrast * gain, 0.5 * gain, math.ceil(self.blur), weight, gamma, noise, out)
        return out
