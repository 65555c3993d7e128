"""Benchmarks that stay: each is a command, `penstock bench NAME`."""
