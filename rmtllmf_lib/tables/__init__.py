"""Tidy tables that the chapters show, a module for each subject: computed here, drawn by `figures`, told in notebooks.

`link` is chapter 1, `wde` and `ratio` chapter 2, `attacks`, `attack_checks` and `paper_link` chapter 3, `fusion`
chapter 4, `interference` chapter 5, `ablation` chapter 6. Nothing else of the library needs them but `verdicts`.
"""
