"""Canvases to draw on, and a camera that adds nothing."""

import numpy as np

from rmtllmf_lib.tasks.embedded.camera import Camera
from rmtllmf_lib.tasks.embedded.draw import Canvas, Pose

STILL = Pose((0.0, 0.0), (1.0, 1.0), 0.0)
PLAIN = Camera(gain=(1.0, 1.0), contrast=(1.0, 1.0), noise=(0.0, 0.0))


def canvas(seed: int = 0, n: int = 3, pose: Pose | None = None) -> Canvas:
    return Canvas(n, np.random.default_rng(seed), pose or Pose((-180, 180), (0.5, 1.5), 0.4, True))


def still(n: int = 1) -> Canvas:
    return canvas(n=n, pose=STILL)
