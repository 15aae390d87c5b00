"""`python -m raytrain`: the `raytrain` command without its script."""

from raytrain.cli.main import main

main()
