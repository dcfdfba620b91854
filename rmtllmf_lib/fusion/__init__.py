"""Fusion of task vectors into one model: task arithmetic, Eq. (6), and the mergers of the literature."""
