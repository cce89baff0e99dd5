"""Mass, its deflection, all images of a source, and the distances that set the scale."""
