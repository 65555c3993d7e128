"""What was said (speed view) and what is recomputed (batch view), as files."""
