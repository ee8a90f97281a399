"""The store: engine, schema, migrations, and the seam through which a unit of work runs."""
