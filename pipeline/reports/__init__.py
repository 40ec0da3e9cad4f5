"""Reports: results as tables, plots, pages and contact sheets."""
