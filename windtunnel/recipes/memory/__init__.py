"""What a training step allocates and frees, in order, without running it."""
