"""The journal: one append-only log that every write goes through, durable before anything is acknowledged."""

from penstock.data.journal.journal import Journal
from penstock.data.journal.record import ClockDecision, Entry, Kind, Record, Totals

__all__ = ["ClockDecision", "Entry", "Journal", "Kind", "Record", "Totals"]
