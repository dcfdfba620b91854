"""Canvases to draw on, and a camera that adds nothing."""

import numpy as np

from rmtllmf_lib.tasks.embedded.camera import Camera
from rmtllmf_lib.tasks.embedded.draw import Canvas
from rmtllmf_lib.tasks.embedded.procedural import Pose

STILL = Pose((0.0, 0.0), (1.0, 1.0), 0.0)
PLAIN = Camera(gain=(1.0, 1.0), contrast=(1.0, 1.0), noise=(0.0, 0.0))


def canvas(seed: int = 0, n: int = 3, **pose: object) -> Canvas:
    free = {"angle": (-180, 180), "scale": (0.5, 1.5), "shift": 0.4, "flip": True}
    # the options have several types, and a mapping of them only one
    return Canvas(n, np.random.default_rng(seed), **(free | pose))  # type: ignore[arg-type]


def still(n: int = 1) -> Canvas:
    return canvas(n=n, angle=(0, 0), scale=(1, 1), shift=0, flip=False)
