"""Fine-tuning, evaluation and pre-training of image towers, and the suites of task vectors."""
