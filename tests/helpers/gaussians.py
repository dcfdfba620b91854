"""Random logits with a random Jacobian, for what depends on them alone."""

import numpy as np

from rmtllmf_lib.disentanglement.first_order import FirstOrder


def random_jacobian(n: int, classes: int, seed: int, parameters: int = 30) -> np.ndarray:
    """Rows (n, C, parameters) with something in common, as gradients of the logits of one image have."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, classes, parameters)) + 0.7 * rng.standard_normal((n, 1, parameters))


def random_model(n: int = 4, classes: int = 5, seed: int = 0, parameters: int = 30) -> FirstOrder:
    jacobian = random_jacobian(n, classes, seed, parameters)
    logits = 3 * np.random.default_rng([seed, 1]).standard_normal((n, classes))
    return FirstOrder(logits, jacobian @ jacobian.swapaxes(1, 2))
