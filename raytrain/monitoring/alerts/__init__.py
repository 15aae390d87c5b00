"""People are told what needs them: once, in time, without a secret, and also after what tells them was killed."""
