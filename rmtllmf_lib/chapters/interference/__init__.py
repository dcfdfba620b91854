"""Tables and figures of chapter 5."""
