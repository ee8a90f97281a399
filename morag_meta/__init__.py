"""MoRAG Meta: the metadata service of a retrieval-augmented-generation platform.

The in-process API is ``morag_meta.db.database.Database``; the server is ``morag-meta serve``.
"""
