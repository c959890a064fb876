"""The bus over HTTP: one reader, one buffer, many followers."""
