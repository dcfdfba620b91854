"""From the link to errors in parameters (Section IV): a Gaussian surrogate, and links that really send the numbers."""

from rmtllmf_lib.transport.link import Link, Received, send
from rmtllmf_lib.transport.scenario import CLEAN, Scenario, from_link, inject_mse, inject_snr
from rmtllmf_lib.transport.schemes import SCHEMES, Analog, Coded, Detected, Pam, Pcm, RawFloat, Scheme, scheme_named
from rmtllmf_lib.transport.statistics import ErrorStatistics, error_statistics
from rmtllmf_lib.transport.surrogate import CORRELATIONS, SCALES, error_covariance, noise_power, surrogate

__all__ = [
    "CLEAN",
    "CORRELATIONS",
    "SCALES",
    "SCHEMES",
    "Analog",
    "Coded",
    "Detected",
    "ErrorStatistics",
    "Link",
    "Received",
    "Pam",
    "Pcm",
    "RawFloat",
    "Scenario",
    "Scheme",
    "error_covariance",
    "error_statistics",
    "from_link",
    "inject_mse",
    "inject_snr",
    "noise_power",
    "scheme_named",
    "send",
    "surrogate",
]
