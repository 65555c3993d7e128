"""OPC UA as a client that only reads: sessions, nodes, what is said now and what was said before."""
