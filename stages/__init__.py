"""The stages of oddlens: ingest, classifier, counter, arcs, ranking, report."""
