"""Errors in task vectors caused by the link, Section IV: a Gaussian surrogate, and links that send the numbers."""
