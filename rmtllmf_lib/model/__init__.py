"""Weights and task vectors on flat buffers, Eq. (1), and the CLIP towers."""
