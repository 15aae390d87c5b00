"""The import target of Serve configs: `import_path: serve.app:build_application`.

`raytrain serve config serve/laptop.yaml` writes such a file.
"""

from raytrain.serving.deployment import build_application

__all__ = ["build_application"]
