"""Where things live: artifacts with manifests, URIs through pyarrow.fs, and the records database."""
