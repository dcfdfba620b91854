"""From the link to errors in parameters (Section IV): a Gaussian surrogate, and links that really send the numbers."""

from rmtllmf_lib.transport.schemes import SCHEMES, Analog, Detected, Scheme, scheme_named
from rmtllmf_lib.transport.surrogate import CORRELATIONS, SCALES, noise_power, surrogate

__all__ = [
    "CORRELATIONS",
    "SCALES",
    "SCHEMES",
    "Analog",
    "Detected",
    "Scheme",
    "noise_power",
    "scheme_named",
    "surrogate",
]
