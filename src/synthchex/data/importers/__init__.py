"""Published chest X-ray sets, each read from the layout it was published in, all written as the same record."""
