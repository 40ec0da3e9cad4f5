"""The ablation: what each loss of XEL is worth to each detector, over seeds; as a table, a page and a plot."""
