"""Sinks, a file each."""
