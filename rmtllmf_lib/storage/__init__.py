"""Results on disk: written atomically, found by the configuration that made them, verified on every read."""
