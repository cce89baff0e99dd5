"""Stage 1: is it a lens? One compact network for every survey."""
