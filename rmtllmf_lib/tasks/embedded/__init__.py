"""The eight embedded tasks: seven drawn on demand, one of scanned handwritten digits."""
