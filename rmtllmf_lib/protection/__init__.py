"""Protection of the fused model against noise in the task vectors (Section III)."""
