"""Stage 3: how much of a ring, where, how large. One small U-Net marks lensed light and measures the ring."""
