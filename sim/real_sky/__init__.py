"""Real cutouts to paint on: which are deflectors, what mass they may have, what is painted."""
