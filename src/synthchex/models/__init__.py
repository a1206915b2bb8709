"""Networks behind small interfaces: encoders, classifiers, samplers. Nothing is loaded at import."""
