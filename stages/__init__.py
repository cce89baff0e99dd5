"""The stages of oddlens: ingest, classifier, counter, arcs, ranking, report."""

__version__ = "0.1.0"
