"""What a row is, how a film is read, how rows are kept: records, images, sources, shards."""
