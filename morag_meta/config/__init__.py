"""What a process can be told: its settings, how they are read, and what does not fit."""
