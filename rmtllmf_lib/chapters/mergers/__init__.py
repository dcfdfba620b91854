"""The chapter on mergers: what else can be made of task vectors than their sum, with and without noise."""
