"""How readings lie in the messages of sources and sinks."""
