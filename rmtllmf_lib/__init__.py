"""Resilient multi-task model fusion over wireless links: the library behind the book.

The map, from the paper to the code: an item of the paper, the function, its test, and where the book treats it, with
the book's own numbers.

Section II
----------

Figure 1, one condition from the task vectors to the scores: receive, fuse, protect, evaluate
    study.units.run_unit
    tests/study/test_units.py::test_rows_of_a_unit
    book/intro, "The system": Fig. 2

Section II-A
------------

Eq. (1), task vector
    model.task_vector.TaskVector
    tests/model/test_task_vector_points.py::test_points_and_differences
    notebooks/04_fusion, "Specialists and their task vectors": (4.1), Fig. 4.2

Eq. (2), the uplink
    wireless.channel.Uplink
    tests/wireless/test_channel.py::test_uplink_derives_what_follows_from_its_three_fields
    notebooks/01_system_model, "One drop": (1.1), Fig. 1.1

Eq. (3), rate of each user
    wireless.receiver.sic_rates
    tests/wireless/test_receiver.py::test_rates_and_filters_are_the_textbook_s
    notebooks/01_system_model, "One user after another": (1.2), Fig. 1.2

below Eq. (3), order of decoding
    wireless.receiver.sic_order
    tests/wireless/test_receiver.py::test_order_and_its_ties
    notebooks/01_system_model, "Which user first?": Fig. 1.5

Eq. (4), sum rate as printed
    wireless.receiver.sum_rate_published
    tests/wireless/test_receiver.py::test_published_gap_between_the_sum_rates
    notebooks/01_system_model, "What the cell carries in total": (1.5), Fig. 1.4

Eq. (5), MSE of each user
    wireless.receiver.sic_mse
    tests/wireless/test_receiver.py::test_mse_is_what_symbols_meet
    notebooks/01_system_model, "One user after another": (1.3), Fig. 1.3

Eq. (5), as distortion of ideal compression and coding
    chapters.system_model.tables.coded_distortion
    tests/chapters/system_model/test_tables.py::test_codes_leave_no_less_than_the_link_allows
    notebooks/01_system_model, "Decoded, and yet with an error?": (1.6), Fig. 1.7

Eq. (6), fusion
    fusion.arithmetic.fuse
    tests/fusion/test_arithmetic.py::test_fuse_is_the_plain_sum
    notebooks/04_fusion, "Adding them up": (4.2), Fig. 4.5

Eq. (6), choice of lambda_N
    fusion.arithmetic.lambda_n
    tests/fusion/test_arithmetic.py::test_published_table_and_fit
    notebooks/04_fusion, "Adding them up": Fig. 4.4

not in the paper, mergers other than the sum, by name
    fusion.mergers.merge
    tests/fusion/test_mergers.py::test_every_merger_keeps_base_and_layout_and_leaves_its_input_alone
    notebooks/08_mergers, "Without noise": Fig. 8.1

not in the paper, what noise leaves of a singular direction
    chapters.mergers.directions.survival
    tests/chapters/mergers/test_directions.py::test_survival_is_that_of_a_simulation
    notebooks/08_mergers, "Why they cross": (8.1), Fig. 8.4

Section II-B
------------

Eq. (7), weight disentanglement error
    disentanglement.wde.wde
    tests/disentanglement/test_wde.py::test_wde_is_the_share_of_changed_answers
    notebooks/02_wde_mse_test, "Interference: when fusion changes a task's own answer": (2.1), Fig. 2.1

Eq. (8), a task's own answers
    disentanglement.wde.own_classes
    tests/disentanglement/test_wde.py::test_wde_of_a_given_model
    notebooks/02_wde_mse_test, "Interference: when fusion changes a task's own answer": (2.1), Fig. 2.1

above Eq. (9), ratio of logits and its first order
    disentanglement.ratio_test.ratio
    tests/chapters/wde_mse_test/test_ratio_tables.py::test_ratio_against_first_order_is_the_hyperbola
    notebooks/02_wde_mse_test, "From the weights to the logits, Eq. (10)": (2.6), Fig. 2.3

Eq. (9), error of the fused weights
    chapters.wde_mse_test.tables.received_noise
    tests/chapters/wde_mse_test/test_tables.py::test_received_noise_is_what_fusion_sees
    notebooks/02_wde_mse_test, "From the link to the weights, Eq. (9)": (2.2)

Eq. (9), standard deviation of that error
    disentanglement.wde.noise_std
    tests/disentanglement/test_wde.py::test_noise_std_is_the_surrogates
    notebooks/02_wde_mse_test, "From the link to the weights, Eq. (9)": (2.3)

Eq. (10), logits to first order
    disentanglement.linearise.along
    tests/disentanglement/test_linearise.py::test_directions
    notebooks/02_wde_mse_test, "From the weights to the logits, Eq. (10)": (2.4), Fig. 2.2

Eq. (10), covariance of the logits
    disentanglement.linearise.gram
    tests/disentanglement/test_linearise.py::test_gram_is_that_of_the_jacobian
    notebooks/02_wde_mse_test, "From the weights to the logits, Eq. (10)": (2.5), Fig. 2.2

Eq. (11), standard deviation of the ratio to first order
    disentanglement.ratio_test.relative_std
    tests/disentanglement/test_ratio_test.py::test_relative_std
    notebooks/02_wde_mse_test, "The variance of the ratio, Eq. (11)": (2.7), Fig. 2.4

Eq. (11), exact law of the ratio
    disentanglement.ratio_test.within_probability
    tests/disentanglement/test_ratio_test.py::test_law_of_the_deviation
    notebooks/02_wde_mse_test, "The variance of the ratio, Eq. (11)": (2.8), Fig. 2.4

Eq. (12), threshold that follows the MSE
    disentanglement.ratio_test.first_order_probability
    tests/disentanglement/test_ratio_test.py::test_a_threshold_that_follows_the_mse
    notebooks/02_wde_mse_test, "The limit, Eq. (12)": (2.9), Fig. 2.5

Eq. (12), threshold fixed at a reference MSE
    disentanglement.ratio_test.first_order_probability
    tests/disentanglement/test_ratio_test.py::test_a_threshold_fixed_at_a_reference
    notebooks/02_wde_mse_test, "The limit, Eq. (12)": (2.10), Fig. 2.5

not in the paper, spread of the margins
    disentanglement.first_order.FirstOrder.difference_norms
    tests/disentanglement/test_first_order.py::test_norms_are_those_of_the_rows
    notebooks/02_wde_mse_test, "Margins: the statistic that predicts flips": (2.11), Fig. 2.7

not in the paper, bounds of the flip probability
    disentanglement.margins.flip_bounds
    tests/disentanglement/test_margins.py::test_bounds_hold
    notebooks/02_wde_mse_test, "Margins: the statistic that predicts flips": (2.12), Fig. 2.7

not in the paper, chi-square statistic
    disentanglement.chi_square_test.statistic
    tests/disentanglement/test_chi_square_test.py::test_statistic_is_the_pseudo_inverse_of_the_centred_covariance
    notebooks/02_wde_mse_test, "Chi-square: a test for the noise itself": (2.13), Fig. 2.8

not in the paper, power of the chi-square test
    disentanglement.chi_square_test.power
    tests/disentanglement/test_chi_square_test.py::test_size_and_power
    notebooks/02_wde_mse_test, "Chi-square: a test for the noise itself": (2.14), Fig. 2.8

Section II-C
------------

set of C_z, jammer on top of thermal noise
    wireless.adversary.attack
    tests/wireless/test_adversary.py::test_covariance_and_bounds
    notebooks/03_worst_case_noise, "The rules of the game": (3.1)

(P1), (P2), every attack by name: "sum-rate", "minimax", "minimax-sic", …
    wireless.adversary.attack
    tests/wireless/test_adversary.py::test_covariance_and_bounds
    notebooks/03_worst_case_noise, "How we know that these are the minima": Fig. 3.4

(P1), least sum rate
    wireless.adversary._sum_rate_design
    tests/wireless/test_adversary.py::test_no_other_covariance_gets_below_the_bound
    notebooks/03_worst_case_noise, "Least sum rate: a saddle point": (3.2), Fig. 3.4

(P1), as a semidefinite program for a general solver
    wireless.adversary.attack
    tests/wireless/test_adversary_convex.py::test_sum_rate
    notebooks/03_worst_case_noise, "How we know that these are the minima": (3.10), Fig. 3.4

Eq. (13), sum rate
    wireless.receiver.sum_rate
    tests/wireless/test_receiver.py::test_what_must_not_change_the_rates
    notebooks/01_system_model, "What the cell carries in total": (1.4), Fig. 1.4

Eq. (14), as printed, power counted twice
    wireless.allocation.published_covariance_eigenvalues
    tests/wireless/test_allocation.py::test_printed_equation_counts_the_power_twice
    notebooks/03_worst_case_noise, "What counting the power twice costs": (3.5), Fig. 3.2

Eq. (14), eigenvalues of the worst noise, power counted once
    wireless.allocation.allocate
    tests/wireless/test_allocation.py::test_is_the_stable_form_of_the_corrected_equation
    notebooks/03_worst_case_noise, "Where the jammer puts its power": (3.3), Fig. 3.1

Eq. (14), conditions of optimality
    wireless.optimality.kkt_residuals
    tests/wireless/test_optimality.py::test_kkt_residuals_of_the_allocation
    notebooks/03_worst_case_noise, "Where the jammer puts its power": (3.4), Fig. 3.1

(P2), largest rate of a user
    wireless.adversary.largest_rate
    tests/wireless/test_attack_budget.py::test_largest_rate
    notebooks/03_worst_case_noise, "The strongest user": (3.6), Fig. 3.3

(P2), solved where users choose their powers
    wireless.minimax.minimax
    tests/wireless/test_minimax.py::test_minimax_reaches_the_gap
    notebooks/03_worst_case_noise, "The true minimax, when users may fall silent": (3.7), Fig. 3.3

(P2), bounds that certify a solution of the minimax problem
    wireless.minimax.Bracket
    tests/wireless/test_minimax.py::test_bounds_hold_wherever_the_solvers_stop
    notebooks/03_worst_case_noise, "The true minimax, when users may fall silent": (3.8), Fig. 3.4

(P2), solved at full power
    wireless.minimax.minimax_sic
    tests/wireless/test_minimax.py::test_minimax_sic_reaches_the_gap
    notebooks/03_worst_case_noise, "The true minimax at full power": (3.9), Fig. 3.3

Eq. (15), noise along the strongest user's channel
    wireless.adversary._strongest_user_design
    tests/wireless/test_adversary.py::test_strongest_user_is_the_best_against_that_user
    notebooks/03_worst_case_noise, "The true minimax at full power": Fig. 3.3

not in the paper, error common to all users
    wireless.receiver.common_error
    tests/wireless/test_error_correlations.py::test_common_error
    notebooks/03_worst_case_noise, "Do the users' errors add up?": (3.11), Fig. 3.7

Section III
-----------

Section III, R-MTLLMF as a whole
    protection.resilience.protect
    tests/protection/test_resilience.py::test_protections_are_made_of_their_parts
    notebooks/04_fusion, "The paper's Figure 2": Fig. 4.6

Section III, parameter freezing: embeddings from the base
    protection.embeddings.reload_embeddings
    tests/protection/test_resilience.py::test_embeddings_are_the_bases_and_the_rest_is_untouched
    notebooks/06_ablations, "Which embeddings": Fig. 6.5

Section III, few-shot realignment
    protection.realign.realign
    tests/protection/test_realign.py::test_the_steps_are_those_of_a_plain_loop
    notebooks/06_ablations, "Steps and learning rate": Fig. 6.6

Section III, memory of a few images per class
    protection.memory.draw_memory
    tests/protection/test_memory.py::test_so_many_training_images_of_every_class
    notebooks/06_ablations, "The parts, one at a time": Fig. 6.3

Section III, ours: lambda chosen on the memory, "noise-aware"
    protection.resilience.search_lambda
    tests/protection/test_resilience.py::test_the_search_takes_the_lambda_with_the_smallest_loss
    notebooks/06_ablations, "Lambda under noise": Fig. 6.8

Section III, ours: weights of least mean square error, "wiener-lambda"
    protection.resilience.wiener_weights
    tests/protection/test_resilience.py::test_wiener_weights_are_the_best_linear_ones
    notebooks/06_ablations, "Lambda under noise": Fig. 6.8

Section IV
----------

Section IV, users and link of the experiments
    wireless.channel.draw_uplinks
    tests/wireless/test_channel.py::test_the_paper_s_setting
    notebooks/01_system_model, "Where the users stand": Fig. 1.8

Section IV, task vectors sent symbol by symbol
    transport.link.send
    tests/transport/test_link.py::test_error_variance_of_genie_sic
    notebooks/01_system_model, "Task vectors, really sent": Fig. 1.11

Section IV, Gaussian noise with variance proportional to the MSE
    transport.surrogate.surrogate
    tests/transport/test_surrogate.py::test_variance_and_correlation
    notebooks/04_fusion, "What noise does the paper mean?": (4.3), Fig. 4.6

Section IV, scale of the noise: what its variance is proportional to
    transport.surrogate.noise_power
    tests/transport/test_surrogate.py::test_noise_power
    notebooks/06_ablations, "Which noise?": (6.1), Fig. 6.2

Section IV, normalised accuracy of every combination of tasks
    training.combinations.evaluate_combinations
    tests/training/test_combinations.py::test_the_table_of_all_combinations
    notebooks/04_fusion, "Adding them up": Fig. 4.5

Section IV-1
------------

Figure 2, accuracy against the number of tasks, by link and protection
    study.study.run_study
    tests/study/test_study.py::test_predictions_are_those_of_a_plain_loop
    notebooks/04_fusion, "The paper's Figure 2": Fig. 4.6

Section IV-1, SNR and MSE of the ideal link
    chapters.worst_case_noise.paper_link.white_noise_bound
    tests/chapters/worst_case_noise/test_paper_link.py::test_white_noise_bound
    notebooks/03_worst_case_noise, "The numbers of Section IV": (3.12), Fig. 3.8

Section IV-1, settings nearest to the paper's MSEs under attack
    chapters.worst_case_noise.paper_link.closest_settings
    tests/chapters/worst_case_noise/test_paper_link.py::test_closest_settings
    notebooks/03_worst_case_noise, "The numbers of Section IV": Fig. 3.8

Section IV-1, readings of the paper's SNRs
    chapters.worst_case_noise.paper_link.search_snrs
    tests/chapters/worst_case_noise/test_paper_link.py::test_search_finds_the_reading_that_made_the_numbers
    notebooks/03_worst_case_noise, "The numbers of Section IV": Fig. 3.8

Section IV-2
------------

Section IV-2, cosines between task vectors
    model.task_vector.cosine_matrix
    tests/model/test_task_vector.py::test_cosines_against_pairs
    notebooks/04_fusion, "Specialists and their task vectors": Fig. 4.3

Section IV-2, cosines under noise
    disentanglement.cosines.noisy_cosines
    tests/disentanglement/test_cosines.py::test_the_formula_is_that_of_vectors_and_orthogonal_noise
    notebooks/05_interference, "What noise does to a cosine": (5.1), Fig. 5.1

Figure 3, cosines after R-MTLLMF on the ideal link
    study.interference.cosine_study
    tests/study/test_interference.py::test_table_of_cosines
    notebooks/05_interference, "What are the task vectors of R-MTLLMF?": Fig. 5.2

Figure 4, cosines under attack, without protection
    study.interference.cosine_study
    tests/study/test_interference.py::test_vectors_as_received_are_those_of_a_study
    notebooks/05_interference, "What are the task vectors of R-MTLLMF?": Fig. 5.3

Section IV-3
------------

Figure 5, accuracy against the size of the memory
    study.study.run_study
    tests/study/test_study.py::test_rows_of_every_condition_and_no_other
    notebooks/06_ablations, "The parts, one at a time": Fig. 6.3

Section IV-3, losses with their intervals
    study.compare.gap
    tests/study/test_compare.py::test_gap_is_a_paired_t_interval
    notebooks/06_ablations, "The parts, one at a time": Fig. 6.3

Section V
---------

Section V, every claim, measured and judged
    chapters.verdicts.claims.assess
    tests/chapters/verdicts/test_verdicts.py::test_claims_become_rows

not in the paper, bits that a link carries
    wireless.information.capacity_bits
    tests/chapters/send_less/test_tables.py::test_what_is_sampled_has_the_law_of_the_formulas
    notebooks/09_send_less, "What a bad link carries": (9.1), Fig. 9.1

not in the paper, least error of numbers sent in several uses
    wireless.information.ideal_distortion
    tests/chapters/send_less/test_tables.py::test_what_is_sampled_has_the_law_of_the_formulas
    notebooks/09_send_less, "What a bad link carries": (9.2), Fig. 9.1

not in the paper, low-rank training, LoRA and L-LoRA
    training.lora.finetune_lora
    tests/training/test_lora.py::test_a_frozen_a_is_layerwise_linearisation
    notebooks/09_send_less, "Train less in the first place: LoRA and L-LoRA": (9.3), Fig. 9.7

not in the paper, federated averaging over the link
    training.fedavg.federated_averaging
    tests/training/test_fedavg.py::test_one_round_is_task_arithmetic_bit_for_bit
    notebooks/09_send_less, "Several rounds: federated averaging": (9.4), Fig. 9.8

not in the paper, the answer: low rank with a code and TSV-Merge
    protection.resilience.protect
    tests/protection/test_resilience.py::test_protections_are_made_of_their_parts
    notebooks/09_send_less, "The answer": Fig. 9.4

Section V, noise learned from silent snapshots
    wireless.sensing.sensed_cov
    tests/wireless/test_sensing.py::test_with_a_floor_it_is_the_most_likely_covariance
    notebooks/10_physical_layer, "Listening while nobody sends": (10.1), Fig. 10.1

Section V, one measured gain for each user
    wireless.mismatch.scaled_mse
    tests/wireless/test_mismatch.py::test_scaled_mse_is_the_least_of_all_scales
    notebooks/10_physical_layer, "One gain per user": (10.2), Fig. 10.1

Section V, channels learned from pilots
    wireless.pilots.channel_from_pilots
    tests/wireless/test_pilots.py::test_estimates_have_the_law_of_pilots_sent_through_the_antennas
    notebooks/10_physical_layer, "Channels that are estimated": (10.3), Fig. 10.2

Section V, errors of a receiver with estimated channels
    wireless.mismatch.mismatched_error_cov
    tests/wireless/test_mismatch.py::test_mse_is_what_symbols_meet
    notebooks/10_physical_layer, "Channels that are estimated": (10.4), Fig. 10.2

Section V, surrogate covariance from sensed directions
    wireless.linear_array.surrogate_cov
    tests/wireless/test_linear_array.py::test_filters_for_the_true_surrogate_have_the_largest_sinr
    notebooks/10_physical_layer, "Directions instead of snapshots": (10.5), Fig. 10.3

Section V, angular spread before a linear array
    wireless.linear_array.spread_correlation
    tests/wireless/test_linear_array.py::test_spread_is_the_mean_over_scattered_paths
    notebooks/10_physical_layer, "Directions instead of snapshots": (10.6), Fig. 10.3

Section V, users lost to a jammer and what is merged without them
    study.outage.outage_study
    tests/study/test_outage.py::test_a_study_of_lost_users_is_made_of_deliveries
    notebooks/10_physical_layer, "What the merged model is left with": Fig. 10.5

not in the paper, a language model over the link, R-MTLLMF and the answer
    study.suites.run_over_suites
    tests/study/test_suites.py::test_one_seed_is_one_suite
    notebooks/11_language_model, "With a memory": Fig. 11.4

not in the paper, payload files, what a user sends of a language model
    transport.payload_file.read_payload
    tests/transport/test_payload_file.py::test_a_file_is_decoded_to_what_arrives
    notebooks/11_language_model, "Merged, on sentences that need no data": Fig. 11.2

Nothing is imported here, so that the wireless modules start without torch.
"""

__version__ = "0.1.0"
