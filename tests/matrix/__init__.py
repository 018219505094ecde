"""The matrix: servers x clients x bodies x framings, bare and wrapped (``make matrix``)."""
