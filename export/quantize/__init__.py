"""How a pack stores its matrices: forms, the rounding to them, and the settings that choose."""
