"""The tests: one folder per feature, and what is needed to run them on real databases."""
