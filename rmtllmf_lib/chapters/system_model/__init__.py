"""Tables and figures of chapter 1."""
