"""Benchmarks of the real server: what it costs beside bare echo, raw drivers and an ORM.

They print and never assert; ``README.md`` says how to read them. Nothing here is part of the service.
"""
