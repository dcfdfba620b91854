"""Tables and figures of chapter 4."""
