"""Weights and task vectors on flat buffers, their fusion (Eqs. (1) and (6)), and the CLIP towers."""
