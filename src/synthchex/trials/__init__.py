"""How far a judge and its screens can be believed: measured on good films with planted defects and captions."""
