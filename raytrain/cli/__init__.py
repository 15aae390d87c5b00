"""The command line: one thin file a command group. Nothing heavy is imported before a command needs it."""
