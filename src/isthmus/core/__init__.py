"""The nouns that everything else is said in: weights, networks, objectives, symmetries. Knows nothing of the rest."""
