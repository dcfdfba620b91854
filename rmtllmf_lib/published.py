"""Numbers that others published, to stand beside ours: facts, each with its source.

References
----------
.. [9] A. Tang, L. Shen, Y. Luo, Y. Zhan, H. Hu, B. Du, Y. Chen, D. Tao, "Parameter Efficient Multi-Task Model Fusion
   with Partial Linearization," 2024, arXiv:2310.04742; its result tables for ViT-B/16 (seven data sets, no MNIST).
"""

from __future__ import annotations

import pandas as pd

from rmtllmf_lib.errors import InputError

# Normalised accuracy, mean over all combinations of N of the seven tasks, at the one lambda per N that is best for that
# mean, N = 2…7 [9] (TIES: at one pair of lambda and density). Lambdas that were tried on some of the combinations only
# do not count. Caveat: those lambdas were chosen on test images.
_NORMALIZED: dict[str, tuple[float, ...]] = {
    "task arithmetic": (0.958, 0.915, 0.875, 0.842, 0.813, 0.789),
    "average": (0.940, 0.857, 0.789, 0.741, 0.706, 0.681),
    "TIES": (0.953, 0.915, 0.882, 0.854, 0.831, 0.812),
    "L-LoRA": (0.968, 0.937, 0.904, 0.875, 0.853, 0.835),
}

# Cosine similarity of the task vectors of two different tasks, full fine-tuning: smallest, mean, largest [9].
COSINES_VIT_B16 = (0.138, 0.202, 0.265)


def normalized_accuracy_vit_b16(method: str = "task arithmetic") -> pd.DataFrame:
    """Published normalised accuracy of merged ViT-B/16 models against the number of tasks [9].

    Returns
    -------
    DataFrame with columns n_tasks (2…7), normalized, method

    Raises
    ------
    InputError
        An unknown method.
    """
    if method not in _NORMALIZED:
        raise InputError(f"no published numbers of method {method!r}: expected one of {', '.join(_NORMALIZED)}")
    values = _NORMALIZED[method]
    return pd.DataFrame({"n_tasks": range(2, 2 + len(values)), "normalized": values, "method": method})
