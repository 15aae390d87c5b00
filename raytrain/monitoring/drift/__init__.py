"""Whether the rows of now are like those of then: pure functions of arrays, and the files around them."""
