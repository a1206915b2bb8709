"""The commands that are not a room's script: one module each, with a `main`."""
