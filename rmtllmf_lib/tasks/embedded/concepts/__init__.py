"""What the embedded world can draw: one module for one kind of thing, name → a function that draws on a canvas."""
