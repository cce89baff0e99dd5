"""From light to pixels: point spread functions, noise, and what goes wrong in a detector."""
