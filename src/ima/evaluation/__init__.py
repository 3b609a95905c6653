"""Evaluation of trained models. The result files are readable without torch: `results`."""
