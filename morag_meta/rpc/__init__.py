"""The wire: one wrapper for every call, and the rules that hold for all of them."""
