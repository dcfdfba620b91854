"""The command `rmtllmf`."""
