"""From the link to errors in parameters (Section IV): a Gaussian surrogate, and links that send the numbers."""
