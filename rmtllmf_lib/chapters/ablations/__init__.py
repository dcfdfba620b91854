"""Tables and figures of chapter 6."""
