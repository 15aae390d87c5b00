"""What a program that needs raytrain does."""

import raytrain

print(raytrain.__name__)
