"""What a user sends in place of its task vector: the numbers of a payload, and the vector that they stand for."""
