"""One file per library whose environments whorl can step."""
