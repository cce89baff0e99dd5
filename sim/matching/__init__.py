"""Measurements of a real survey's cutouts that `sim/match.py` writes to a survey file."""
