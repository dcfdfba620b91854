"""Results on disk: written atomically, found again by what made them, verified when read."""
