"""Weight disentanglement (Section II-B): its error, the effect of noise in the parameters, and tests for that noise.

`wde` computes the weight disentanglement error, Eqs. (7) and (8). `linearise` gives the first order of the logits in
the parameters, through the tower in `model.differentiable_tower`, and `first_order` holds the result. From it,
`margins` predicts how often predictions flip; `ratio_test`, Eqs. (9) to (12), and `chi_square_test` decide from logits
whether there was noise. `noisy_logits` checks these predictions on whole noisy models. `cosines` gives the effect of
noise on the cosine similarity of task vectors (Section IV-2).
"""
