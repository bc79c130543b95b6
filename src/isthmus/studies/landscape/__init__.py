"""The landscape around solutions: flatness, spectra and walks of one, the arrangement of many."""
