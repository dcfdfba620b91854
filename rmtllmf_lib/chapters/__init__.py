"""Tables and figures of the notebooks: a package for each, under its name, with `tables` and `figures`."""
