"""Features: made by extractors or imported, kept as plain arrays with sidecars, audited, and handed on as bags."""
