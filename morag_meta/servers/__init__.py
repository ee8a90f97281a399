"""Servers: how to reach the vector and graph stores of a user, secrets encrypted."""
