"""The serving processes: what they are composed of, where they listen, and how they start and end."""
