"""Ranking: the stages' numbers to one calibrated probability, a morphology word and a selection."""
