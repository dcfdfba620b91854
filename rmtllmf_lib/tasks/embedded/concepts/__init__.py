"""What the embedded tasks can show: a module per kind of thing, in each a function per concept that draws it."""
