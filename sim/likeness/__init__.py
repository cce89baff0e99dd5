"""How simulated images differ from real ones: measurements, a small network, and `sim/realism.py`'s page."""
