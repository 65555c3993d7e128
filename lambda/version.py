"""The version of this package, importable from anywhere without loading anything."""

VERSION = "0.1.0"
