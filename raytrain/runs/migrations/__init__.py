"""How the records database came to its present tables, step by step, for Alembic: forward only."""
