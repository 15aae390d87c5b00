"""What a bundle is made of and how it was made, in the forms that others' tools read."""
