"""The archive: all readings on the grid, in Zarr under icechunk's transactions, written by one committer."""

from penstock.data.archive.archive import Archive, View
from penstock.data.archive.head import Head

__all__ = ["Archive", "Head", "View"]
