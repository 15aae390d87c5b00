"""Where metrics go: one file a sink, all under the contract in sink.py."""
