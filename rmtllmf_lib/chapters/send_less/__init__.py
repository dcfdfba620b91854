"""Tables and figures of chapter 9."""
