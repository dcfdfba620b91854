"""Weight disentanglement (Section II-B): its error, what noise in the parameters adds to it, and tests of that.

From the definition to the tests: `error` counts the weight disentanglement error, Eqs. (7) and (8); `linearise` gives
the first order of the logits in the parameters (`differentiable` is the tower that it differentiates, `first_order`
what it yields); `margins` predicts flips from it; `ratio_test`, Eqs. (9) to (12), and `chi_square_test` decide from
logits whether noise was there; `noisy_logits` counts on whole noisy models what they predict.
"""
