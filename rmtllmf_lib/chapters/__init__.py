"""What the notebooks show, a package for each, of the same name: `tables` compute, `figures` draw."""
