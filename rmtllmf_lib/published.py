"""Published results to compare ours with, each with its source.

References
----------
.. [1] The paper that this book reproduces, Section IV and Figures 2 to 5 (eight tasks, ViT-B/16).
.. [9] A. Tang, L. Shen, Y. Luo, Y. Zhan, H. Hu, B. Du, Y. Chen, D. Tao, "Parameter Efficient Multi-Task Model Fusion
   with Partial Linearization," 2024, arXiv:2310.04742; its result tables for ViT-B/16 (seven data sets, no MNIST).
.. [10] A. Tang, L. Shen, Y. Luo, H. Hu, B. Du, D. Tao, "FusionBench: A Comprehensive Benchmark of Deep Model Fusion,"
   2024, arXiv:2406.03280; its tables for CLIP's ViT-B/16 and ViT-B/32 on the eight data sets.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from rmtllmf_lib.arrays import one_of

# Normalised accuracy, mean over all combinations of N of the seven tasks, at the one lambda per N that is best for that
# mean, N = 2…7 [9] (TIES: at one pair of lambda and density). Lambdas that were tried on only some of the combinations
# are left out. Caveat: those lambdas were chosen on test images.
_NORMALIZED: dict[str, tuple[float, ...]] = {
    "task arithmetic": (0.958, 0.915, 0.875, 0.842, 0.813, 0.789),
    "average": (0.940, 0.857, 0.789, 0.741, 0.706, 0.681),
    "TIES": (0.953, 0.915, 0.882, 0.854, 0.831, 0.812),
    "L-LoRA": (0.968, 0.937, 0.904, 0.875, 0.853, 0.835),
}

# Means over the eight data sets [10]: accuracy without and with fine-tuning, the first over the second, and accuracy of
# all eight fused by task arithmetic over that with fine-tuning. The last two are ratios of means; the mean of the
# ratios of the data sets, as normalised accuracy is defined here, is .830 for ViT-B/16 fused.
CLIP_RESULTS = {
    "ViT-B/16": {"zero_shot": 0.55, "fine_tuned": 0.92, "zero_shot_normalized": 0.60, "fused_normalized": 0.835},
    "ViT-B/32": {"zero_shot": 0.48, "fine_tuned": 0.90, "zero_shot_normalized": 0.53, "fused_normalized": 0.75},
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
        for an unknown method.
    """
    values = _NORMALIZED[one_of(method, _NORMALIZED, "method")]
    return pd.DataFrame({"n_tasks": range(2, 2 + len(values)), "normalized": values, "method": method})


@dataclass(frozen=True)
class PaperLink:
    """Results that the paper reports for one noise scenario with eight tasks [1].

    Attributes
    ----------
    title : str
    snr_db : float, dB
        The paper does not say which powers the ratio compares.
    mse : float
        Mean over the eight users.
    unprotected : (float, float)
        Normalised accuracy of the plain fused model, smallest and largest value reported.
    rmtllmf : float
        Normalised accuracy with R-MTLLMF.
    """

    title: str
    snr_db: float
    mse: float
    unprotected: tuple[float, float]
    rmtllmf: float


PAPER_LINKS = {
    "ideal": PaperLink("ideal", -16.2, 0.013, (0.363, 0.363), 0.891),
    "SU": PaperLink("strongest user attacked", -21.7, 0.16, (0.04, 0.06), 0.533),
    "SR": PaperLink("sum rate attacked", -27.3, 0.21, (0.04, 0.06), 0.548),
}

PAPER_BASELINE = 0.912  # normalised accuracy of eight fused tasks without noise, Section IV-1 [1]
PAPER_GAIN = (9.0, 14.0)  # R-MTLLMF over unprotected under attack, smallest and largest factor, Section IV-1 [1]
PAPER_ABLATION_LOSS = (0.21, 0.53)  # by how much freezing or realigning alone is worse than both, Section IV-3 [1]
PAPER_SAMPLES = 10  # per class, beyond which more samples gain little, Section IV-3 [1]
PAPER_COSINES_PROTECTED = 0.24  # largest cosine between two task vectors with R-MTLLMF, Figure 3 [1]
PAPER_COSINES_ATTACKED = (0.48, 0.52)  # smallest and largest cosine under the sum-rate attack, Figure 4 [1]
