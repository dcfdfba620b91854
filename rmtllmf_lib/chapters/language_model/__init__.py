"""Tables and figures of chapter 11."""
