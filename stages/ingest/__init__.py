"""A survey on disk to a stream of cutouts: FITS, pictures, arrays, tiles with a catalogue."""

from stages.ingest.options import IngestOptions, InputError
from stages.ingest.stream import Survey

__all__ = ["IngestOptions", "InputError", "Survey"]
