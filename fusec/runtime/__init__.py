"""Building, keeping, loading and running generated models. Everything but `cache` and `save` is copied into every artefact."""
