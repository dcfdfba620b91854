"""From the link to errors in parameters (Section IV): a Gaussian surrogate, and links that really send the numbers."""

from rmtllmf_lib.transport.surrogate import CORRELATIONS, SCALES, noise_power, surrogate

__all__ = ["CORRELATIONS", "SCALES", "noise_power", "surrogate"]
