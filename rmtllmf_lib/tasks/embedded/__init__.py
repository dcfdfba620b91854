"""Seven drawn tasks and one of scanned digits, made where they are needed."""
