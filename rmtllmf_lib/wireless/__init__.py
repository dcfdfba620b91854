"""The uplink (Section II-A) and its adversaries (Section II-C), in NumPy and SciPy alone."""
