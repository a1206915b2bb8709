"""Networks behind small interfaces: encoders, samplers, judges. Nothing is loaded at import."""
