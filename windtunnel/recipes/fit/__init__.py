"""Whether a model fits in memory, from its facts and a layout, without recording anything."""
