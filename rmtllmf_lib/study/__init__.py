"""Many conditions into one table: in parts, in several processes, resumable."""
