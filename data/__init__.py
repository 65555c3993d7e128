"""What everything shares: readings, grid, journal, archive, quality, windows, plants and models as values and files."""
