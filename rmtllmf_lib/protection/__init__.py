"""What the base station does against noise in the fused model (Section III)."""
