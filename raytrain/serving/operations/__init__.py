"""What an operator asks of all replicas while they serve: versions kept at hand, and no new requests."""
