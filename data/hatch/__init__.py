"""The hatch: through it workers that cannot enter a site are handed its records, its cells and their read plans."""

from penstock.data.hatch.place import Hatch, marked, outside
from penstock.data.hatch.stores import FarArchive, FarJournal, Records, Stored, plan_text
from penstock.data.hatch.wire import Wire

__all__ = ["FarArchive", "FarJournal", "Hatch", "Records", "Stored", "Wire", "marked", "outside", "plan_text"]
