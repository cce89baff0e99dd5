"""The simulator of oddlens: labelled strong lenses and impostors, matched to a survey."""
