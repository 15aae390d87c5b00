"""Names, versions and aliases of what was released; who changed them, when, why, and on what evidence."""
