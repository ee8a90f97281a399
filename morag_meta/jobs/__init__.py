"""Jobs: their states, their reports, and the stream of their changes."""
