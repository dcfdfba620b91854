"""Tasks: labelled images with class names, drawn or read from disk, behind `sources.load_task`."""
