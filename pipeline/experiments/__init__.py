"""Experiments: workflows that train and judge: the ablation, comparisons, the published table, the demo."""
