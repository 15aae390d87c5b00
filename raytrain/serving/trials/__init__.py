"""A candidate beside production: some of a name's requests go to it, or are asked of both."""
