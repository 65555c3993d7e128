"""From files and tables to readings in the journal; what cannot be read goes to a rejects file with line and reason."""
