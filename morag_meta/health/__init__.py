"""Whether this process can serve: the probe of the database, and grpc.health.v1 that tells it."""
