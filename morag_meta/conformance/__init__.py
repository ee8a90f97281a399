"""The contract of RPCs and streams as cases that run against any endpoint, from outside.

What does not live here: anything of the server. A case knows the public stubs, gRPC and the error
details of google.rpc, as a client in any language does.
"""
