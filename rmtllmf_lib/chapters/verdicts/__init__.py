"""The paper's claims, one by one: what each says, how it is measured here, and the rule from numbers to a verdict."""
