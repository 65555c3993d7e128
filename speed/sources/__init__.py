"""Where live readings come from; every source is read-only towards the plant."""
